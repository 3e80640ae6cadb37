#include "engine/memory/copy_engine.h"

#include <ATen/ops/clone.h>
#include <ATen/ops/from_blob.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "engine/core/torch_types.h"

#ifdef KINO_WITH_CUDA
#include "engine/memory/cuda_copy_engine.h"
#endif

namespace kino::engine {
namespace {

constexpr int64_t kAlignment = 256;

// The weights' views into the slot's buffer.
std::vector<at::Tensor> Views(const SlotCopy& copy) {
  int64_t total = 0;
  const std::vector<int64_t> offsets = SlotOffsets(copy.weights, &total);
  std::vector<at::Tensor> views;
  for (size_t i = 0; i < copy.weights.size(); ++i) {
    const Weight& weight = *copy.weights[i];
    views.push_back(
        copy.buffer.narrow(0, offsets[i], weight.bytes()).view(weight.dtype).view(weight.shape));
  }
  return views;
}

class ThreadCopyEngine final : public CopyEngine {
 public:
  ThreadCopyEngine() : thread_([this] { Work(); }) {}
  ~ThreadCopyEngine() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  Ticket Start(const SlotCopy& copy) override {
    const std::vector<at::Tensor> views = Views(copy);
    for (size_t i = 0; i < views.size(); ++i) copy.weights[i]->value = views[i];
    const std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back({copy.weights, views});
    changed_.notify_all();
    return ++started_;
  }

  void Wait(Ticket ticket) override {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return finished_ >= ticket; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  void Release(const SlotCopy&) override {}  // The compute thread's use ends when its call returns.

 private:
  struct Job {
    std::vector<Weight*> weights;
    std::vector<at::Tensor> views;
  };

  void Work() {
    const c10::InferenceMode inference;
    for (;;) {
      Job job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
        if (queue_.empty()) return;
        job = std::move(queue_.front());
        queue_.pop_front();
      }
      std::exception_ptr error;
      try {
        for (size_t i = 0; i < job.weights.size(); ++i)
          job.views[i].copy_(HomeTensor(*job.weights[i]));
      } catch (...) {
        error = std::current_exception();
      }
      const std::lock_guard<std::mutex> lock(mutex_);
      if (error) error_ = error;
      ++finished_;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> queue_;     // guarded by mutex_
  Ticket started_ = 0;        // guarded by mutex_
  Ticket finished_ = 0;       // guarded by mutex_
  std::exception_ptr error_;  // guarded by mutex_
  bool stop_ = false;         // guarded by mutex_
  std::thread thread_;
};

}  // namespace

std::vector<int64_t> SlotOffsets(const std::vector<Weight*>& weights, int64_t* total) {
  std::vector<int64_t> offsets;
  int64_t end = 0;
  for (const Weight* weight : weights) {
    offsets.push_back(end);
    end += (weight->bytes() + kAlignment - 1) / kAlignment * kAlignment;
  }
  *total = end;
  return offsets;
}

at::Tensor HomeTensor(const Weight& weight) {
  // from_blob takes a writable pointer; the pages are mapped read-only, so a write would fault
  // rather than pass.
  auto* data = const_cast<std::byte*>(weight.home->data);
  const c10::ScalarType dtype = ToTorch(weight.home->dtype);
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(dtype) == 0) {
    return at::from_blob(data, weight.shape, at::TensorOptions().dtype(dtype));
  }
  // The format lets a file's header have any length, so its tensors may lie anywhere: such a one is
  // copied.
  const at::Tensor bytes =
      at::from_blob(data, {weight.home->bytes}, at::TensorOptions().dtype(at::kByte));
  return bytes.clone().view(dtype).view(weight.shape);
}

std::unique_ptr<CopyEngine> CopyEngine::Create(c10::Device device) {
#ifdef KINO_WITH_CUDA
  if (device.is_cuda()) return CreateCudaCopyEngine(device);
#endif
  TORCH_CHECK(device.is_cpu(), "no copy engine for ", device.str());
  return std::make_unique<ThreadCopyEngine>();
}

}  // namespace kino::engine
