/* A folder, and the same files from memory: equal logits, and what is missing is named. embedded ARTIFACT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "slmc.h"

static slmc_file load(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  if (!file) exit(3);
  fseek(file, 0, SEEK_END);
  const size_t size = (size_t)ftell(file);
  rewind(file);
  void *data = aligned_alloc(64, (size + 127) / 64 * 64);
  if (!data || fread(data, 1, size, file) != size) exit(3);
  fclose(file);
  const slmc_file loaded = {name, data, size};
  return loaded;
}

int main(int count, char **arguments) {
  if (count != 2) return 2;
  slmc_file files[4];
  const char *names[4] = {"manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"};
  for (int i = 0; i < 4; ++i) files[i] = load(arguments[1], names[i]);
  slmc_model *folder = NULL, *memory = NULL, *missing = NULL;
  if (slmc_open(arguments[1], 1, &folder) || slmc_open_memory(files, 4, 1, &memory)) return 4;
  int32_t tokens[64], others[64];
  size_t found = 0, again = 0, width = 0;
  if (slmc_encode(folder, "The light was", tokens, 64, &found) || slmc_encode(memory, "The light was", others, 64, &again)) return 5;
  if (found != again || memcmp(tokens, others, found * sizeof *tokens)) return 6;
  if (slmc_feed(folder, tokens, found) || slmc_feed(memory, tokens, found)) return 7;
  const float *one = slmc_logits(folder, &width), *two = slmc_logits(memory, &again);
  if (width != again || memcmp(one, two, width * sizeof *one)) return 8;
  printf("%zu tokens, %zu logits\n", found, width);
  printf("%s\n", slmc_open_memory(files, 2, 1, &missing));
  files[2].data = (const char *)files[2].data + 4;
  files[2].size -= 4;
  printf("%s\n", slmc_open_memory(files, 4, 1, &missing));
  slmc_close(folder);
  slmc_close(memory);
  return missing ? 9 : 0;
}
