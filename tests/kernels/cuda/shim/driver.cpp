// A CUDA driver that computes nothing: the real prototypes, and a log of what it was called with. A driver call whose
// arguments are cut to 32 bits, or in another order, shows here and not first on a GPU.
#include <cstdio>
#include <cstring>
#include <string>

static std::string calls;
static int depth = 0, fail_launch = 0;
static char context, module_, function;

template <typename... T>
static void log(const char* format, T... values) {
    char line[400];
    std::snprintf(line, sizeof line, format, values...);
    calls += line;
    calls += '\n';
}

extern "C" {
const char* recorded() { return calls.c_str(); }
void forget() { calls.clear(); }
void let_launches_fail(int yes) { fail_launch = yes; }
int contexts_pushed() { return depth; }

int cuInit(unsigned flags) { return log("init %u", flags), 0; }
int cuDriverGetVersion(int* version) { return *version = 13020, 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = 40 + ordinal, 0; }
int cuDevicePrimaryCtxRetain(void** to, int device) { return log("retain %d", device), *to = &context, 0; }
int cuCtxPushCurrent_v2(void* given) { return given == &context ? ++depth, 0 : 201; }
int cuCtxPopCurrent_v2(void** to) { return *to = &context, --depth, 0; }
int cuModuleLoadData(void** to, const void* image) {
    return log("load %.7s", static_cast<const char*>(image)), *to = &module_, 0;
}
int cuModuleGetFunction(void** to, void* from, const char* name) {
    return log("function %s", name), *to = &function, from == &module_ ? 0 : 500;
}
int cuFuncSetAttribute(void* of, int attribute, int value) {
    return log("attribute %d = %d", attribute, value), of == &function ? 0 : 400;
}
int cuLaunchKernel(void* what, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** parameters, void** extra) {
    long long seen[2];
    std::memcpy(seen, parameters[0], sizeof seen);
    log("launch (%u %u %u) (%u %u %u) %u on %p: %llx %llx", gx, gy, gz, bx, by, bz, shared, stream, seen[0], seen[1]);
    if (fail_launch) return 719;
    return what == &function && extra == nullptr ? 0 : 1;
}
int cuGetErrorString(int status, const char** text) {
    return *text = status == 719 ? "unspecified launch failure" : "another error", 0;
}
}
