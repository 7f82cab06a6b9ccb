/* A CUDA driver without a device: Taichi's CUDA code generation runs on it, and nothing is computed.
 *
 * Device memory is host memory, a launch does nothing, and the code of each kernel (PTX) is written to
 * files whose names begin with $STUB_PTX. The compute capability is $STUB_CAPABILITY, 75 for 7.5.
 * Built by tests/test_cuda_codegen.py. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint32_t Result;
#define OK 0

#define DOES_NOTHING(name) \
    Result name(void) { return OK; }

DOES_NOTHING(cuInit)
DOES_NOTHING(cuCtxSetCurrent)
DOES_NOTHING(cuCtxSetLimit)
DOES_NOTHING(cuDeviceGetDefaultMemPool)
DOES_NOTHING(cuEventCreate)
DOES_NOTHING(cuEventDestroy)
DOES_NOTHING(cuEventElapsedTime)
DOES_NOTHING(cuEventRecord)
DOES_NOTHING(cuEventSynchronize)
DOES_NOTHING(cuExternalMemoryGetMappedBuffer)
DOES_NOTHING(cuExternalMemoryGetMappedMipmappedArray)
DOES_NOTHING(cuFuncSetAttribute)
DOES_NOTHING(cuImportExternalMemory)
DOES_NOTHING(cuImportExternalSemaphore)
DOES_NOTHING(cuMemAdvise)
DOES_NOTHING(cuMemFreeAsync)
DOES_NOTHING(cuMemFree_v2)
DOES_NOTHING(cuMemPoolSetAttribute)
DOES_NOTHING(cuMipmappedArrayGetLevel)
DOES_NOTHING(cuSignalExternalSemaphoresAsync)
DOES_NOTHING(cuStreamCreate)
DOES_NOTHING(cuStreamSynchronize)
DOES_NOTHING(cuSurfObjectCreate)
DOES_NOTHING(cuWaitExternalSemaphoresAsync)
DOES_NOTHING(cuLaunchKernel)

Result cuGetErrorName(Result e, const char **p) { *p = "stub"; return OK; }
Result cuGetErrorString(Result e, const char **p) { *p = "stub"; return OK; }
Result cuDriverGetVersion(int *v) { *v = 12080; return OK; }
Result cuDeviceGetCount(int *v) { *v = 1; return OK; }
Result cuDeviceGet(int *d, int i) { *d = 0; return OK; }
Result cuDeviceGetName(char *s, int n, int d) { strcpy(s, "stub"); return OK; }
Result cuCtxGetCurrent(void **c) { *c = (void *)1; return OK; }
Result cuCtxCreate_v2(void **c, uint32_t flags, int d) { *c = (void *)1; return OK; }
Result cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)1; return OK; }

Result cuDeviceGetAttribute(int *v, uint32_t attribute, int d) {
    switch (attribute) {
    case 75: *v = atoi(getenv("STUB_CAPABILITY")) / 10; break;
    case 76: *v = atoi(getenv("STUB_CAPABILITY")) % 10; break;
    case 16: *v = 4; break;       /* multiprocessors */
    case 39: *v = 2048; break;    /* threads on each */
    case 97: *v = 232448; break;  /* shared memory a block */
    case 106: *v = 32; break;     /* blocks on each */
    case 115: *v = 1; break;      /* memory pools */
    default: *v = 1024;
    }
    return OK;
}

Result cuMemAlloc_v2(void **p, size_t n) { *p = calloc(1, n + 64); return OK; }
Result cuMemAllocManaged(void **p, size_t n, uint32_t flags) { *p = calloc(1, n + 64); return OK; }
Result cuMemAllocAsync(void **p, size_t n, void *stream) { *p = calloc(1, n + 64); return OK; }
Result cuMemGetInfo_v2(size_t *f, size_t *t) { *f = *t = (size_t)8 << 30; return OK; }
Result cuMemcpyHtoD_v2(void *d, void *s, size_t n) { memcpy(d, s, n); return OK; }
Result cuMemcpyDtoH_v2(void *d, void *s, size_t n) { memcpy(d, s, n); return OK; }
Result cuMemcpyDtoD_v2(void *d, void *s, size_t n) { memcpy(d, s, n); return OK; }
Result cuMemcpyHtoDAsync_v2(void *d, void *s, size_t n, void *stream) { memcpy(d, s, n); return OK; }
Result cuMemcpyDtoHAsync_v2(void *d, void *s, size_t n, void *stream) { memcpy(d, s, n); return OK; }
Result cuMemsetD8_v2(void *d, uint8_t v, size_t n) { memset(d, v, n); return OK; }
Result cuMemsetD32_v2(void *d, uint32_t v, size_t n) { return OK; }
Result cuPointerGetAttribute(uint32_t *v, uint32_t attribute, void *p) { *v = 2; return OK; }
Result cuFuncGetAttribute(int *v, uint32_t attribute, void *f) { *v = 0; return OK; }
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *v, void *f, int b, size_t s) { *v = 8; return OK; }

Result cuModuleLoadDataEx(void **module, const char *ptx, uint32_t n, void *options, void **values) {
    static int count = 0;
    char path[4096];
    snprintf(path, sizeof path, "%s-%04d.ptx", getenv("STUB_PTX"), count++);
    FILE *file = fopen(path, "w");
    fputs(ptx, file);
    fclose(file);
    *module = (void *)(intptr_t)count;
    return OK;
}

Result cuModuleGetFunction(void **f, void *module, const char *name) { *f = (void *)1; return OK; }
