#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ./sim --seed 1 --mu 0.5 -n 4: normal numbers around mu; it crashes where mu is below -1. */
int main(int argc, char **argv) {
  unsigned long long state = 0;
  double mu = 0.0;
  int n = 4;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--seed")) state = strtoull(argv[i + 1], 0, 10);
    else if (!strcmp(argv[i], "--mu")) mu = strtod(argv[i + 1], 0);
    else if (!strcmp(argv[i], "-n")) n = atoi(argv[i + 1]);
    else { fprintf(stderr, "unknown option %s\n", argv[i]); return 2; }
  }
  if (mu < -1.0) abort();
  for (int i = 0; i < n; i++) {
    double u[2];
    for (int j = 0; j < 2; j++) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      u[j] = ((state >> 11) + 0.5) / 9007199254740992.0;
    }
    printf("%.17g\n", mu + sqrt(-2.0 * log(u[0])) * cos(6.283185307179586 * u[1]));
  }
  return 0;
}
