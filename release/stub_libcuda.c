/* A CUDA driver without a device: Taichi's CUDA code generation runs on it, and nothing is computed.
 *
 * Device memory is host memory and a launch does nothing. The code of each module (PTX) is written to files whose names
 * begin with $STUB_PTX. The compute capability is $STUB_CAPABILITY, 75 for 7.5. With $STUB_LOG, what the driver is
 * asked to do is appended to that file, a call a line:
 *
 *   load MODULE
 *   push CONTEXT, pop CONTEXT
 *   launch ENTRY GRID BLOCK SHARED STREAM CONTEXT PARAMETER BUFFER
 *
 * PARAMETER is the one parameter of the kernel in hexadecimal digits, or "-" if it is no structure. BUFFER is the last
 * copy from the host, if the parameter starts with the address that it went to, else "-". $STUB_FAIL="FUNCTION:NUMBER"
 * lets a function fail. The context of device i is the number i + 1. Built by release/compile_kernels.py. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint32_t Result;
#define OK 0

#define DOES_NOTHING(name) \
    Result name(void) { return OK; }

DOES_NOTHING(cuInit)
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

static Result failure(const char *function) {
    const char *wanted = getenv("STUB_FAIL");
    size_t n = strlen(function);
    return wanted && !strncmp(wanted, function, n) && wanted[n] == ':' ? (Result)atoi(wanted + n + 1) : OK;
}

static FILE *open_log(void) {
    const char *path = getenv("STUB_LOG");
    return path ? fopen(path, "a") : NULL;
}

static void print_bytes(FILE *log, const unsigned char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) fprintf(log, "%02x", bytes[i]);
}

Result cuGetErrorName(Result e, const char **p) { *p = "CUDA_ERROR_STUB"; return OK; }
Result cuGetErrorString(Result e, const char **p) { *p = "asked to fail"; return OK; }
Result cuDriverGetVersion(int *v) { *v = 12080; return OK; }
Result cuDeviceGetCount(int *v) { *v = 1; return OK; }
Result cuDeviceGet(int *d, int i) { *d = i; return failure("cuDeviceGet"); }
Result cuDeviceGetName(char *s, int n, int d) { strcpy(s, "stub"); return OK; }

static __thread void *current_context;
static __thread void *below[16];
static __thread int n_below;

Result cuCtxSetCurrent(void *c) { current_context = c; return OK; }
Result cuCtxGetCurrent(void **c) { *c = current_context; return OK; }
Result cuCtxCreate_v2(void **c, uint32_t flags, int d) { *c = current_context = (void *)(intptr_t)(d + 1); return OK; }
Result cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)(intptr_t)(d + 1); return OK; }

Result cuCtxPushCurrent_v2(void *c) {
    below[n_below++] = current_context;
    current_context = c;
    FILE *log = open_log();
    if (log) fprintf(log, "push %p\n", c), fclose(log);
    return OK;
}

Result cuCtxPopCurrent_v2(void **c) {
    *c = current_context;
    current_context = below[--n_below];
    FILE *log = open_log();
    if (log) fprintf(log, "pop %p\n", *c), fclose(log);
    return OK;
}

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

static const void *copied_to;
static size_t n_copied;

Result cuMemAlloc_v2(void **p, size_t n) { *p = calloc(1, n + 64); return OK; }
Result cuMemAllocManaged(void **p, size_t n, uint32_t flags) { *p = calloc(1, n + 64); return OK; }
Result cuMemAllocAsync(void **p, size_t n, void *stream) { *p = calloc(1, n + 64); return OK; }
Result cuMemGetInfo_v2(size_t *f, size_t *t) { *f = *t = (size_t)8 << 30; return OK; }
Result cuMemcpyHtoD_v2(void *d, void *s, size_t n) { memcpy(d, s, n); return OK; }
Result cuMemcpyDtoH_v2(void *d, void *s, size_t n) { memcpy(d, s, n); return OK; }
Result cuMemcpyDtoD_v2(void *d, void *s, size_t n) { memcpy(d, s, n); return OK; }
Result cuMemcpyDtoHAsync_v2(void *d, void *s, size_t n, void *stream) { memcpy(d, s, n); return OK; }
Result cuMemsetD8_v2(void *d, uint8_t v, size_t n) { memset(d, v, n); return OK; }
Result cuMemsetD32_v2(void *d, uint32_t v, size_t n) { return OK; }
Result cuPointerGetAttribute(uint32_t *v, uint32_t attribute, void *p) { *v = 2; return OK; }
Result cuFuncGetAttribute(int *v, uint32_t attribute, void *f) { *v = 0; return OK; }
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *v, void *f, int b, size_t s) { *v = 8; return OK; }

Result cuMemcpyHtoDAsync_v2(void *d, void *s, size_t n, void *stream) {
    memcpy(d, s, n);
    copied_to = d;
    n_copied = n;
    return OK;
}

typedef struct {
    char name[512];
    size_t n_bytes; /* of its parameter */
} Function;

Result cuModuleLoadDataEx(void **module, const char *ptx, uint32_t n, void *options, void **values) {
    static int count = 0;
    char path[4096];
    Result result = failure("cuModuleLoadDataEx");
    if (result != OK) return result;
    snprintf(path, sizeof path, "%s-%04d.ptx", getenv("STUB_PTX"), count++);
    FILE *file = fopen(path, "w");
    fputs(ptx, file);
    fclose(file);
    *module = strdup(ptx);
    FILE *log = open_log();
    if (log) fprintf(log, "load %04d\n", count - 1), fclose(log);
    return OK;
}

Result cuModuleGetFunction(void **f, void *module, const char *name) {
    char parameter[600];
    Function *function = calloc(1, sizeof *function);
    snprintf(function->name, sizeof function->name, "%s", name);
    snprintf(parameter, sizeof parameter, "%s_param_0[", name);
    const char *size = strstr(module, parameter);
    function->n_bytes = size ? strtoul(size + strlen(parameter), NULL, 10) : 0;
    *f = function;
    return failure("cuModuleGetFunction");
}

Result cuLaunchKernel(Function *f, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz,
                      uint32_t shared, void *stream, void **parameters, void **extra) {
    FILE *log = open_log();
    if (log) {
        fprintf(log, "launch %s %ux%ux%u %ux%ux%u %u %ld %ld ", f->name, gx, gy, gz, bx, by, bz, shared,
                (long)(intptr_t)stream, (long)(intptr_t)current_context);
        if (f->n_bytes)
            print_bytes(log, parameters[0], f->n_bytes);
        else
            fputc('-', log);
        fputc(' ', log);
        if (f->n_bytes >= 8 && *(void **)parameters[0] == copied_to && copied_to)
            print_bytes(log, copied_to, n_copied);
        else
            fputc('-', log);
        fputc('\n', log);
        fclose(log);
    }
    return failure("cuLaunchKernel");
}
