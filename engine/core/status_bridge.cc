#include "engine/core/status_bridge.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <new>

#include "absl/strings/str_cat.h"
#include "engine/core/log.h"

namespace kino::engine {
namespace {

constexpr int32_t kCudaErrorMemoryAllocation = 2;  // cudaErrorMemoryAllocation; not sticky

absl::Status DeviceLost(const std::string& what) {
  absl::Status status = absl::InternalError(absl::StrCat("the device failed: ", what));
  status.SetPayload(kDeviceLostPayload, absl::Cord(""));
  return status;
}

absl::Status OutOfMemory(const std::string& what) {
  absl::Status status = absl::ResourceExhaustedError(what);
  status.SetPayload(kOutOfMemoryPayload, absl::Cord(""));
  return status;
}

// what: "[enforce fail at FILE:LINE] ...: you tried to allocate N bytes. Error code 12 (...)".
absl::Status OutOfHostMemory(const std::string& what) {
  const size_t tried = what.find("you tried to allocate");
  return OutOfMemory(absl::StrCat("host memory ran out: ",
                                  tried == std::string::npos ? what : what.substr(tried)));
}

}  // namespace

void ThrowIfError(const absl::Status& status) {
  if (!status.ok()) throw StatusError(status);
}

absl::Status RunGuarded(absl::FunctionRef<absl::Status()> body) {
  try {
    const c10::InferenceMode inference;
    return body();
  } catch (const StatusError& error) {
    return error.status();
  } catch (const c10::OutOfMemoryError& error) {
    return OutOfMemory(error.what_without_backtrace());
  } catch (const c10::AcceleratorError& error) {
    // Page-locked memory that cannot be had is no fault of the device.
    if (error.get_error_code() == kCudaErrorMemoryAllocation)
      return OutOfMemory(error.what_without_backtrace());
    return DeviceLost(error.what_without_backtrace());
  } catch (const c10::NotImplementedError& error) {
    return absl::UnimplementedError(error.what_without_backtrace());
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    // Torch's CPU allocator, where ours is not installed, has no exception of its own
    // (c10/core/impl/alloc_cpu.cpp).
    if (what.find("DefaultCPUAllocator: can't allocate memory") != std::string::npos ||
        what.find("not enough memory") != std::string::npos) {
      return OutOfHostMemory(what);
    }
    if (what.find("CUBLAS_STATUS_ALLOC_FAILED") != std::string::npos) return OutOfMemory(what);
    Log(LogLevel::kError, error.what());
    return absl::InternalError(what);
  } catch (const std::bad_alloc&) {
    return OutOfMemory("no host memory is left");
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

absl::Status RunGuarded(c10::Device device, absl::FunctionRef<absl::Status()> body) {
  return RunGuarded([&] {
    const c10::DeviceGuard current(device);
    return body();
  });
}

}  // namespace kino::engine
