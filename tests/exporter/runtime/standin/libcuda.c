/* A driver with one GPU of compute capability 8.9, as far as vitrim asks a driver; with none where STANDIN_NO_GPU is set. */
#include <stdlib.h>
#include <string.h>

int cuInit(unsigned flags) { return getenv("STANDIN_NO_GPU") ? 100 : flags != 0; }

int cuDeviceGet(int *device, int number) { *device = 0; return number != 0; }

int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "RTX 4090", size); return device; }

int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 9; return device; }

int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
