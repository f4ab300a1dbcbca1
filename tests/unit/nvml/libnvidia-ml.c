/* An NVML that says what the environment tells it to, so that the reading through pynvml can be tested without a GPU.
 *
 *   NVML_INIT=9       nvmlInitWithFlags returns this error
 *   NVML_GPUS=8       how many GPUs
 *   NVML_LOST=3       handle of this GPU cannot be had: "GPU is lost"
 *   NVML_FELL=4       this GPU's every question is answered so
 *   NVML_SLEEP=60     nvmlInitWithFlags takes so many seconds
 *   NVML_g_NAME=v     what GPU g says: TEMP REASONS LINKS WIDTH PENDING FAILED ECC RECOVERY POWER
 * The order of arguments and the layouts are those of nvml.h.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, GPU_IS_LOST = 15 };

typedef struct { int index; } *device_t;
typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
} pci_t;
typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    unsigned type, result;
    union { unsigned u; unsigned long long ull; double d; } value;
} field_t;

static struct { int index; } gpus[64];

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static int of(device_t gpu, const char *name, int otherwise) {
    char full[64];
    snprintf(full, sizeof full, "NVML_%d_%s", gpu->index, name);
    return number(full, otherwise);
}

#define ASKED(gpu) do { if ((gpu)->index == number("NVML_FELL", -1)) return GPU_IS_LOST; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; sleep((unsigned)number("NVML_SLEEP", 0)); return number("NVML_INIT", SUCCESS); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == GPU_IS_LOST ? "GPU is lost" : "another error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)number("NVML_GPUS", 0); return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *gpu) {
    if ((int)index == number("NVML_LOST", -1)) return GPU_IS_LOST;
    gpus[index].index = (int)index;
    *gpu = (device_t)&gpus[index];
    return SUCCESS;
}
int nvmlDeviceGetUUID(device_t gpu, char *text, unsigned size) {
    ASKED(gpu);
    snprintf(text, size, "GPU-00000000-0000-0000-0000-%012d", gpu->index);
    return SUCCESS;
}
int nvmlDeviceGetPciInfo_v3(device_t gpu, pci_t *pci) {
    ASKED(gpu);
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", 0x3b + gpu->index);
    return SUCCESS;
}
int nvmlDeviceGetRemappedRows(device_t gpu, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    ASKED(gpu);
    *corrected = *uncorrected = 0;
    *pending = (unsigned)of(gpu, "PENDING", 0);
    *failed = (unsigned)of(gpu, "FAILED", 0);
    return SUCCESS;
}
int nvmlDeviceGetRetiredPagesPendingStatus(device_t gpu, int *pending) { ASKED(gpu); (void)pending; return NOT_SUPPORTED; }
int nvmlDeviceGetTotalEccErrors(device_t gpu, int kind, int counter, unsigned long long *count) {
    ASKED(gpu);
    if (kind != 1 || counter != 0) return INVALID_ARGUMENT; /* uncorrected, volatile */
    *count = (unsigned long long)of(gpu, "ECC", 0);
    return SUCCESS;
}
int nvmlDeviceGetTemperature(device_t gpu, int sensor, unsigned *degrees) {
    ASKED(gpu);
    if (sensor != 0) return INVALID_ARGUMENT;
    *degrees = (unsigned)of(gpu, "TEMP", 45);
    return SUCCESS;
}
int nvmlDeviceGetTemperatureThreshold(device_t gpu, int which, unsigned *degrees) {
    ASKED(gpu);
    *degrees = which == 0 ? 95 : which == 1 ? 90 : 85; /* shutdown, slowdown */
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(device_t gpu, unsigned long long *reasons) {
    ASKED(gpu);
    *reasons = (unsigned long long)of(gpu, "REASONS", 1);
    return SUCCESS;
}
int nvmlDeviceGetNvLinkState(device_t gpu, unsigned link, unsigned *active) {
    ASKED(gpu);
    if (link >= 18) return INVALID_ARGUMENT;
    *active = (int)link < of(gpu, "LINKS", 18);
    return SUCCESS;
}
int nvmlDeviceGetCurrPcieLinkWidth(device_t gpu, unsigned *width) { ASKED(gpu); *width = (unsigned)of(gpu, "WIDTH", 16); return SUCCESS; }
int nvmlDeviceGetMaxPcieLinkWidth(device_t gpu, unsigned *width) { ASKED(gpu); *width = 16; return SUCCESS; }
int nvmlDeviceGetPowerUsage(device_t gpu, unsigned *milliwatts) { ASKED(gpu); *milliwatts = (unsigned)of(gpu, "POWER", 90) * 1000; return SUCCESS; }
int nvmlDeviceGetEnforcedPowerLimit(device_t gpu, unsigned *milliwatts) { ASKED(gpu); *milliwatts = 700000; return SUCCESS; }
int nvmlDeviceGetFieldValues(device_t gpu, int count, field_t *values) {
    ASKED(gpu);
    for (int i = 0; i < count; i++) {
        values[i].result = values[i].field == 230 ? SUCCESS : NOT_SUPPORTED;
        values[i].value.u = (unsigned)of(gpu, "RECOVERY", 0);
    }
    return SUCCESS;
}
