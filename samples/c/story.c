/* Goes on with a text, then says what it thinks of the next token: story ARTIFACT TEXT */
#include <stdio.h>
#include <stdlib.h>

#include "slmc.h"

static void must(const char *error) {
  if (!error) return;
  fprintf(stderr, "error: %s\n", error);
  exit(1);
}

static int write_piece(const char *text, size_t size, void *user) {
  (void)user;
  fwrite(text, 1, size, stdout);
  fflush(stdout);
  return 0; /* anything else ends the text */
}

int main(int count, char **arguments) {
  if (count != 3) {
    fprintf(stderr, "usage: story ARTIFACT TEXT\n");
    return 2;
  }
  slmc_model *model = NULL;
  must(slmc_open(arguments[1], 1, &model));

  slmc_info info;
  slmc_describe(model, &info);
  printf("states of %lld bytes, context %lld\n", (long long)info.state_bytes, (long long)info.context);

  /* Text: the prompt, then what follows it. */
  const slmc_options options = {.tokens = 40, .temperature = 0.7f, .top_k = 40, .top_p = 1, .seed = 1};
  printf("%s", arguments[2]);
  must(slmc_generate(model, arguments[2], &options, write_piece, NULL));
  printf("\n");

  /* Tokens: read a text once, keep the state, and come back to it. */
  int32_t tokens[256];
  size_t found = 0, logit_count = 0;
  slmc_reset(model);
  must(slmc_encode(model, arguments[2], tokens, 256, &found));
  must(slmc_feed(model, tokens, found < 256 ? found : 256));
  void *state = malloc((size_t)info.state_bytes);
  if (!state) return 1;
  slmc_save(model, state);
  for (int round = 0; round < 2; ++round) {
    must(slmc_restore(model, state));
    must(slmc_feed(model, tokens, 1));
    const float *logits = slmc_logits(model, &logit_count);
    size_t best = 0;
    for (size_t i = 1; i < logit_count; ++i)
      if (logits[i] > logits[best]) best = i;
    printf("of %zu tokens, number %zu comes next\n", logit_count, best);
  }
  free(state);
  slmc_close(model);
  return 0;
}
