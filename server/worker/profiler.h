// Answers the frontend's questions about what runs need, on a thread of its own, so that an answer
// does not wait for the run that the engine thread is in.
#pragma once

#include <deque>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kino/v1/worker.pb.h"
#include "server/worker/models.h"

namespace kino::worker {

class Profiler {
 public:
  using Answer = std::function<void(v1::ProfileAnswer answer)>;

  // `models` outlives this. `answer` is called on any thread, once for each query that Stop does
  // not overtake.
  Profiler(Models& models, Answer answer);
  // Stops.
  ~Profiler();
  // Lets the answer under way end and forgets the others. Thread-safe.
  void Stop();
  // Returns at once. Thread-safe. Beyond a bound the answer is RESOURCE_EXHAUSTED.
  void Ask(v1::ProfileQuery query);

 private:
  void Loop();
  v1::ProfileAnswer AnswerTo(const v1::ProfileQuery& query);

  Models& models_;
  const Answer answer_;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  std::deque<v1::ProfileQuery> queries_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kino::worker
