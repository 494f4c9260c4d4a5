/* slmc: compressed language models on a device, from the folder that `slmc build` writes. Link libslmc_run.a, the C++
 * library and threads.
 *
 * Functions that can fail return NULL, or one line that says what is wrong; it is valid until the next call of the same
 * thread. A model belongs to one thread at a time. Text is UTF-8. */
#ifndef SLMC_H
#define SLMC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct slmc_model slmc_model;

typedef struct slmc_info {
  int64_t context;      /* the most tokens of one text, -1 without a limit */
  int64_t state_bytes;  /* what slmc_save writes */
  int32_t classes;      /* of a classifier, else 0 */
  int32_t whole_texts;  /* 1: a text has to be fed in one call */
  int32_t has_rules;    /* 1: the artifact says how texts begin and end */
} slmc_info;

/* Opens an artifact's folder; `threads` counts the caller's. */
const char *slmc_open(const char *folder, int threads, slmc_model **model);

typedef struct slmc_file {
  const char *name; /* as in the folder */
  const void *data; /* of model.onnx.data aligned to 64 bytes */
  size_t size;
} slmc_file;

/* The same from memory, which must outlive the model and is used in place: manifest.json, model.onnx, model.onnx.data
 * and, where text is read or written, tokenizer.json. */
const char *slmc_open_memory(const slmc_file *files, size_t count, int threads, slmc_model **model);
void slmc_close(slmc_model *model);

void slmc_describe(const slmc_model *model, slmc_info *info);
/* The name of a class, NULL beyond the last. */
const char *slmc_label(const slmc_model *model, int32_t index);

/* Forgets all text. */
void slmc_reset(slmc_model *model);
/* Reads tokens behind those read before; after an error the text so far may have been read in part: reset. */
const char *slmc_feed(slmc_model *model, const int32_t *tokens, size_t count);
/* The logits after the last token, or the scores of the text so far; NULL before the first token. Valid until the next
 * call. */
const float *slmc_logits(const slmc_model *model, size_t *count);

/* Tokens of a text as this model begins texts. Writes at most `room` of them, and how many there are to `count`. */
const char *slmc_encode(slmc_model *model, const char *text, int32_t *tokens, size_t room, size_t *count);
/* The text of tokens, with a zero behind it. Writes at most `room` bytes, and how many are needed to `size`. */
const char *slmc_decode(slmc_model *model, const int32_t *tokens, size_t count, char *text, size_t room, size_t *size);

typedef struct slmc_options {
  size_t tokens;      /* to write at most */
  float temperature;  /* 0: the best token */
  int32_t top_k;      /* 0: all */
  float top_p;        /* 1: all */
  uint64_t seed;
} slmc_options;

/* Gets whole characters as they come; what is not 0 ends the text. */
typedef int (*slmc_writer)(const char *text, size_t size, void *user);

/* Reads a text behind what was read before and writes what the model goes on with, without what ends it. */
const char *slmc_generate(slmc_model *model, const char *text, const slmc_options *options, slmc_writer write, void *user);

/* The whole state of a text, into and from memory of `state_bytes`. */
void slmc_save(const slmc_model *model, void *memory);
const char *slmc_restore(slmc_model *model, const void *memory);

#ifdef __cplusplus
}
#endif
#endif
