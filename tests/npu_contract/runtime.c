/* The part of CANN's runtime that torch_npu needs to hold tensors: one device whose memory is the
 * host's. There is no operator here. Signatures follow the headers in the torch_npu wheel,
 * torch_npu/include/third_party/acl/inc/acl; every function returns 0, success, or an error. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define OUT_OF_MEMORY 207001

/* Streams, events and contexts are only ever compared: any distinct non-null value will do. */
static uintptr_t handles = 0x1000;
static int new_handle(void **handle) { *handle = (void *)(handles += 16); return 0; }

#define SUCCEEDS(name) int name(void) { return 0; }
#define CREATES(name) int name(void **handle) { return new_handle(handle); }
#define ANSWERS(name, before, type, value) \
    int name(before type *answer) { if (answer) *answer = value; return 0; }
#define NOTHING_BEFORE
#define AFTER(type) type ignored,

/* Device */
SUCCEEDS(aclInit)
SUCCEEDS(aclFinalize)
SUCCEEDS(aclrtSetDevice)
SUCCEEDS(aclrtResetDevice)
SUCCEEDS(aclrtSynchronizeDevice)
SUCCEEDS(aclrtSynchronizeDeviceWithTimeout)
SUCCEEDS(aclrtSetCurrentContext)
ANSWERS(aclrtGetDeviceCount, NOTHING_BEFORE, uint32_t, 1)
ANSWERS(aclrtGetDevice, NOTHING_BEFORE, int32_t, 0)
ANSWERS(aclrtDeviceGetBareTgid, NOTHING_BEFORE, int32_t, 1)
ANSWERS(aclrtGetLogicDevIdByUserDevId, AFTER(int32_t), int32_t, ignored)
int aclrtGetCurrentContext(void **context) { *context = (void *)0x10; return 0; }
int aclrtDeviceCanAccessPeer(int32_t *can, int32_t a, int32_t b) { *can = 0; return 0; }
int aclrtGetPrimaryCtxState(int32_t device, uint32_t *flags, int32_t *active)
{
    if (flags) *flags = 0;
    if (active) *active = 1;
    return 0;
}
int aclrtGetDeviceInfo(uint32_t device, int attribute, int64_t *value) { *value = 24; return 0; }
int aclGetDeviceCapability(uint32_t device, int attribute, int64_t *value) { *value = 24; return 0; }
const char *aclrtGetSocName(void) { return "Ascend910B2"; }

/* Memory */
int aclrtMalloc(void **pointer, size_t size, int policy)
{
    return posix_memalign(pointer, 512, size ? size : 1) ? OUT_OF_MEMORY : 0;
}
int aclrtMallocAlign32(void **pointer, size_t size, int policy)
{
    return aclrtMalloc(pointer, size, policy);
}
int aclrtMallocWithCfg(void **pointer, size_t size, int policy, void *config)
{
    return aclrtMalloc(pointer, size, policy);
}
int aclrtMallocHost(void **pointer, size_t size) { return aclrtMalloc(pointer, size, 0); }
int aclrtMallocHostWithCfg(void **pointer, size_t size, void *config)
{
    return aclrtMalloc(pointer, size, 0);
}
int aclrtFree(void *pointer) { free(pointer); return 0; }
int aclrtFreeHost(void *pointer) { free(pointer); return 0; }
int aclrtMemcpy(void *to, size_t room, const void *from, size_t size, int kind)
{
    memcpy(to, from, size);
    return 0;
}
int aclrtMemcpyAsync(void *to, size_t room, const void *from, size_t size, int kind, void *stream)
{
    return aclrtMemcpy(to, room, from, size, kind);
}
int aclrtMemcpyAsyncWithCondition(
    void *to, size_t room, const void *from, size_t size, int kind, void *stream)
{
    return aclrtMemcpy(to, room, from, size, kind);
}
int aclrtMemset(void *to, size_t room, int32_t value, size_t size)
{
    memset(to, value, size);
    return 0;
}
int aclrtMemsetAsync(void *to, size_t room, int32_t value, size_t size, void *stream)
{
    return aclrtMemset(to, room, value, size);
}
int aclrtGetMemInfo(int kind, size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = *total_bytes = (size_t)8 << 30;
    return 0;
}
int aclrtHostRegister(void *host, uint64_t size, int kind, void **device)
{
    *device = host;
    return 0;
}
SUCCEEDS(aclrtHostUnregister)

/* Streams and events: all work is done when the call returns. */
CREATES(aclrtCreateStream)
CREATES(aclrtCreateStreamWithConfig)
CREATES(aclrtCreateEvent)
CREATES(aclrtCreateEventWithFlag)
CREATES(aclrtCreateEventExWithFlag)
SUCCEEDS(aclrtDestroyStream)
SUCCEEDS(aclrtDestroyStreamForce)
SUCCEEDS(aclrtSynchronizeStream)
SUCCEEDS(aclrtSynchronizeStreamWithTimeout)
SUCCEEDS(aclrtSetStreamFailureMode)
SUCCEEDS(aclrtSetStreamOverflowSwitch)
SUCCEEDS(aclrtSetStreamAttribute)
SUCCEEDS(aclrtSubscribeReport)
SUCCEEDS(aclrtUnSubscribeReport)
SUCCEEDS(aclrtDestroyEvent)
SUCCEEDS(aclrtRecordEvent)
SUCCEEDS(aclrtResetEvent)
SUCCEEDS(aclrtStreamWaitEvent)
SUCCEEDS(aclrtSynchronizeEvent)
SUCCEEDS(aclrtSynchronizeEventWithTimeout)
ANSWERS(aclrtStreamQuery, AFTER(void *), int, 0)
ANSWERS(aclrtQueryEventStatus, AFTER(void *), int, 1)
ANSWERS(aclrtQueryEventWaitStatus, AFTER(void *), int, 1)
ANSWERS(aclrtGetStreamOverflowSwitch, AFTER(void *), uint32_t, 0)
int aclrtEventElapsedTime(float *milliseconds, void *start, void *stop)
{
    *milliseconds = 0;
    return 0;
}
int aclrtLaunchCallback(void (*function)(void *), void *data, int block, void *stream)
{
    function(data);
    return 0;
}
int aclrtLaunchHostFunc(void *stream, void (*function)(void *), void *data)
{
    function(data);
    return 0;
}

/* Options and errors */
SUCCEEDS(aclrtSetDeviceSatMode)
SUCCEEDS(aclrtSetOpExecuteTimeOut)
SUCCEEDS(aclrtSetOpWaitTimeout)
SUCCEEDS(aclrtCtxSetSysParamOpt)
SUCCEEDS(aclrtSetSysParamOpt)
SUCCEEDS(aclSetCompileopt)
SUCCEEDS(aclrtPeekAtLastError)
SUCCEEDS(aclrtGetLastError)
ANSWERS(aclrtCtxGetSysParamOpt, AFTER(int), int64_t, 0)
ANSWERS(aclrtGetSysParamOpt, AFTER(int), int64_t, 0)
ANSWERS(aclrtSetOpExecuteTimeOutV2, AFTER(uint64_t), uint64_t, ignored)
size_t aclGetCompileoptSize(int option) { return 256; }
int aclGetCompileopt(int option, char *value, size_t size) { if (size) *value = 0; return 0; }
const char *aclGetRecentErrMsg(void) { return "there is no CANN: tests/npu_contract stands in"; }
void aclAppLog(void) {}
