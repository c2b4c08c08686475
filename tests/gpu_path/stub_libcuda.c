/* What imports look for in libcuda.so.1; every call says that there is no device (CUDA_ERROR_NO_DEVICE). */
#define NO_DEVICE(name) int name(void) { return 100; }
NO_DEVICE(cuInit) NO_DEVICE(cuCtxGetCurrent) NO_DEVICE(cuCtxSetCurrent) NO_DEVICE(cuDeviceGetAttribute)
NO_DEVICE(cuDevicePrimaryCtxRetain) NO_DEVICE(cuGetErrorString) NO_DEVICE(cuGetProcAddress_v2)
NO_DEVICE(cuMemAddressFree) NO_DEVICE(cuMemAddressReserve) NO_DEVICE(cuMemCreate) NO_DEVICE(cuMemGetAllocationGranularity)
NO_DEVICE(cuMemMap) NO_DEVICE(cuMemRelease) NO_DEVICE(cuMemSetAccess) NO_DEVICE(cuMemUnmap)
NO_DEVICE(cuPointerGetAttribute) NO_DEVICE(cuTensorMapEncodeTiled)
int cuDriverGetVersion(int *version) { *version = 0; return 100; }
