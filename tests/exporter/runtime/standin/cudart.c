/* A libcudart whose GPU is the host's memory: copies copy, a recorded graph is launched again, events tell the time.
   The stand-in for tensorrt hands its work to `standin_enqueue`. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void (*work)(void);
static int capturing, alive, streams, graphs;
static work recorded;

int cudaMalloc(void **made, size_t size) { *made = malloc(size); alive += *made != NULL; return *made ? 0 : 2; }
int cudaFree(void *old) { alive -= old != NULL; free(old); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    if (!stream || (kind != 1 && kind != 2) || capturing) return 1;
    memcpy(to, from, size);
    return 0;
}
int cudaStreamCreate(void **made) { *made = malloc(1); streams++; return 0; }
int cudaStreamDestroy(void *old) { free(old); streams--; return 0; }
int cudaStreamSynchronize(void *stream) { return stream && !capturing ? 0 : 900; }
int cudaStreamBeginCapture(void *stream, int mode) { capturing = 1; recorded = NULL; return mode == 1 && stream ? 0 : 1; }
int cudaStreamEndCapture(void *stream, void **graph) {
    capturing = 0;
    *graph = (void *)recorded;
    return stream && recorded ? 0 : 901;
}
int cudaGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
    *made = malloc(sizeof(work));
    memcpy(*made, &graph, sizeof(work));
    graphs++;
    return flags ? 1 : 0;
}
int cudaGraphLaunch(void *executable, void *stream) {
    work launched;
    memcpy(&launched, executable, sizeof(work));
    launched();
    return stream ? 0 : 1;
}
int cudaGraphExecDestroy(void *old) { free(old); graphs--; return 0; }
int cudaGraphDestroy(void *old) { return old ? 0 : 1; }
const char *cudaGetErrorString(int code) { return code == 901 ? "operation failed while capturing" : "an error"; }
int cudaEventCreate(void **made) { *made = malloc(sizeof(struct timespec)); return 0; }
int cudaEventDestroy(void *old) { free(old); return 0; }
int cudaEventRecord(void *event, void *stream) { clock_gettime(CLOCK_MONOTONIC, event); return stream ? 0 : 1; }
int cudaEventElapsedTime(float *told, const void *begin, const void *end) {
    const struct timespec *a = begin, *b = end;
    *told = (b->tv_sec - a->tv_sec) * 1e3f + (b->tv_nsec - a->tv_nsec) / 1e6f;
    return 0;
}

void standin_enqueue(work wanted) {
    if (capturing) recorded = wanted; else wanted();
}
int standin_alive(void) { return alive + streams + graphs; }
