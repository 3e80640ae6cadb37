#include "server/worker/profiler.h"

#include <pthread.h>

#include <utility>
#include <vector>

#include "server/convert/profile.h"
#include "server/convert/request.h"
#include "server/convert/status.h"

namespace kino::worker {
namespace {

// A frontend that asks more at a time is broken.
constexpr size_t kMaxQueries = 256;

}  // namespace

Profiler::Profiler(Models& models, Answer answer)
    : models_(models), answer_(std::move(answer)), thread_([this] { Loop(); }) {}

Profiler::~Profiler() { Stop(); }

void Profiler::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

void Profiler::Ask(v1::ProfileQuery query) {
  {
    absl::MutexLock lock(&mutex_);
    if (queries_.size() < kMaxQueries) {
      queries_.push_back(std::move(query));
      changed_.SignalAll();
      return;
    }
  }
  v1::ProfileAnswer full;
  full.set_query_id(query.query_id());
  *full.mutable_error() =
      convert::ToRpc(absl::ResourceExhaustedError("too many profiles are asked of this worker"));
  answer_(std::move(full));
}

void Profiler::Loop() {
  pthread_setname_np(pthread_self(), "profiler");
  while (true) {
    v1::ProfileQuery query;
    {
      absl::MutexLock lock(&mutex_);
      while (!stopping_ && queries_.empty()) changed_.Wait(&mutex_);
      if (stopping_) return;
      query = std::move(queries_.front());
      queries_.pop_front();
    }
    answer_(AnswerTo(query));
  }
}

v1::ProfileAnswer Profiler::AnswerTo(const v1::ProfileQuery& query) {
  v1::ProfileAnswer answer;
  answer.set_query_id(query.query_id());
  std::vector<engine::PhaseVariant> variants;
  for (const v1::Plan& variant : query.variants()) variants.push_back(convert::VariantOf(variant));
  const auto source = models_.Profiles(query.model());
  const absl::StatusOr<engine::RunProfile> profile =
      source.ok() ? (*source)->Profile(convert::ToEngine(query.request()).request, variants)
                  : source.status();
  if (profile.ok()) {
    *answer.mutable_profile() = convert::FromEngine(*profile, !query.without_places());
  } else {
    *answer.mutable_error() = convert::ToRpc(profile.status());
  }
  return answer;
}

}  // namespace kino::worker
