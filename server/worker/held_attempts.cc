#include "server/worker/held_attempts.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert/duration.h"
#include "server/worker/attempt_failure.h"

namespace kino::worker {
namespace {

bool Same(const v1::AttemptRef& a, const v1::AttemptRef& b) {
  return a.job_id() == b.job_id() && a.attempt() == b.attempt() && a.token() == b.token();
}

}  // namespace

void HeldAttempt::Stop(StopReason reason) {
  StopReason current = stop_reason_.load();
  while (current < reason && !stop_reason_.compare_exchange_weak(current, reason)) {
  }
  token_.Cancel();
}

bool HeldAttempt::Begin(absl::Duration now) {
  absl::MutexLock lock(&mutex_);
  if (state_ != State::kWaiting) return false;
  state_ = State::kBegun;
  begun_ = now;
  return true;
}

bool HeldAttempt::EndWaiting() {
  absl::MutexLock lock(&mutex_);
  if (state_ != State::kWaiting) return false;
  state_ = State::kEnded;
  return true;
}

void HeldAttempt::MarkEnded() {
  absl::MutexLock lock(&mutex_);
  state_ = State::kEnded;
}

bool HeldAttempt::ended() const {
  absl::MutexLock lock(&mutex_);
  return state_ == State::kEnded;
}

bool HeldAttempt::is_overdue(absl::Duration now) const {
  if (!command_.has_run_timeout()) return false;
  const absl::Duration limit = convert::ToDuration(command_.run_timeout());
  absl::MutexLock lock(&mutex_);
  return state_ == State::kBegun && now - begun_ > limit;
}

void HeldAttempt::SetProgress(v1::Progress progress) {
  absl::MutexLock lock(&mutex_);
  progress_ = std::move(progress);
}

std::optional<v1::Progress> HeldAttempt::TakeProgress() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(progress_, std::nullopt);
}

absl::StatusOr<std::shared_ptr<HeldAttempt>> HeldAttempts::Add(v1::StartAttempt command) {
  std::string path;
  {
    absl::MutexLock lock(&mutex_);
    for (const Slot& slot : slots_) {
      if (Same(slot.attempt->ref(), command.ref())) {
        return absl::AlreadyExistsError(absl::StrCat("attempt ", command.ref().attempt(),
                                                     " of job ", command.ref().job_id(),
                                                     " is held already"));
      }
    }
    // A name of our own: nothing that came over the wire becomes part of a path.
    path = absl::StrCat(spool_folder_, "/", ++spools_made_, ".spool");
  }
  auto attempt = std::make_shared<HeldAttempt>(std::move(command), Spool::Create(files_, path));
  absl::MutexLock lock(&mutex_);
  slots_.push_back({attempt, 0});
  return attempt;
}

std::vector<HeldAttempts::Slot> HeldAttempts::Slots() const {
  absl::MutexLock lock(&mutex_);
  return slots_;
}

std::shared_ptr<HeldAttempt> HeldAttempts::Find(const v1::AttemptRef& ref) const {
  absl::MutexLock lock(&mutex_);
  for (const Slot& slot : slots_) {
    if (Same(slot.attempt->ref(), ref)) return slot.attempt;
  }
  return nullptr;
}

int HeldAttempts::active() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(std::count_if(slots_.begin(), slots_.end(),
                                        [](const Slot& slot) { return !slot.attempt->ended(); }));
}

bool HeldAttempts::empty() const {
  absl::MutexLock lock(&mutex_);
  return slots_.empty();
}

std::vector<v1::AttemptRef> HeldAttempts::refs() const {
  std::vector<v1::AttemptRef> refs;
  absl::MutexLock lock(&mutex_);
  for (const Slot& slot : slots_) refs.push_back(slot.attempt->ref());
  return refs;
}

std::vector<v1::AttemptPulse> HeldAttempts::Pulses() const {
  std::vector<v1::AttemptPulse> pulses;
  for (const Slot& slot : Slots()) {
    if (slot.attempt->ended()) continue;
    pulses.push_back(slot.attempt->pulse().Read());
    *pulses.back().mutable_ref() = slot.attempt->ref();
  }
  return pulses;
}

int64_t HeldAttempts::SpoolBytes() const {
  int64_t bytes = 0;
  for (const Slot& slot : Slots()) bytes += slot.attempt->spool().bytes();
  return bytes;
}

void HeldAttempts::Stop(const v1::AttemptRef& ref, StopReason reason) {
  const std::shared_ptr<HeldAttempt> attempt = Find(ref);
  if (attempt == nullptr) return;
  attempt->Stop(reason);
  if (const std::optional<Failure> failure = StopFailure(*attempt))
    FailWaitingAttempt(*attempt, *failure);
}

void HeldAttempts::RemoveLocked(const v1::AttemptRef& ref) {
  slots_.erase(std::remove_if(slots_.begin(), slots_.end(),
                              [&](const Slot& slot) { return Same(slot.attempt->ref(), ref); }),
               slots_.end());
}

void HeldAttempts::Drop(const v1::AttemptRef& ref) {
  // Kept alive past the lock: its spool's file goes with the last reference.
  const std::shared_ptr<HeldAttempt> attempt = Find(ref);
  if (attempt == nullptr) return;
  attempt->Stop(StopReason::kDropped);
  // The engine thread, if it has not taken it up, need not.
  attempt->EndWaiting();
  absl::MutexLock lock(&mutex_);
  RemoveLocked(ref);
}

void HeldAttempts::StopAll(StopReason reason) {
  for (const Slot& slot : Slots()) {
    if (reason == StopReason::kDropped) {
      Drop(slot.attempt->ref());
    } else {
      Stop(slot.attempt->ref(), reason);
    }
  }
}

void HeldAttempts::StopOverdue(absl::Duration now) {
  for (const Slot& slot : Slots()) {
    if (slot.attempt->is_overdue(now) && slot.attempt->stop_reason() == StopReason::kNone)
      slot.attempt->Stop(StopReason::kTimedOut);
  }
}

void HeldAttempts::Acknowledge(const v1::AttemptAck& ack) {
  const std::shared_ptr<HeldAttempt> attempt = Find(ack.ref());
  if (attempt == nullptr) return;
  attempt->spool().Acknowledge(ack.number());
  if (!attempt->spool().is_drained()) return;
  absl::MutexLock lock(&mutex_);
  RemoveLocked(ack.ref());
}

void HeldAttempts::Resume(const google::protobuf::RepeatedPtrField<v1::AttemptAck>& resumed) {
  for (const Slot& slot : Slots()) {
    const v1::AttemptRef& ref = slot.attempt->ref();
    const bool still_ours = std::any_of(resumed.begin(), resumed.end(),
                                        [&](const auto& ack) { return Same(ack.ref(), ref); });
    if (!still_ours) Drop(ref);
  }
  for (const v1::AttemptAck& ack : resumed) {
    {
      absl::MutexLock lock(&mutex_);
      for (Slot& slot : slots_) {
        if (Same(slot.attempt->ref(), ack.ref())) slot.sent = ack.number();
      }
    }
    Acknowledge(ack);
  }
}

std::optional<v1::AttemptEvent> HeldAttempts::NextOf(const Slot& slot) {
  HeldAttempt& attempt = *slot.attempt;
  auto event = attempt.spool().Next(slot.sent);
  if (event.ok()) return *std::move(event);
  spdlog::error("job {} attempt {}: {}", attempt.ref().job_id(), attempt.ref().attempt(),
                std::string(event.status().message()));
  // The bytes are lost, so the attempt is. Its end takes their place: the engine thread's, or,
  // where that has come already, this one.
  const bool had_ended = attempt.spool().GiveUp(slot.sent, event.status());
  attempt.Stop(StopReason::kSpoolLost);
  if (!had_ended) return std::nullopt;
  FailEndedAttempt(attempt, SpoolFailure(event.status()));
  return attempt.spool().Next(slot.sent).value_or(std::nullopt);
}

std::optional<v1::AttemptEvent> HeldAttempts::NextToSend() {
  for (const Slot& slot : Slots()) {
    std::optional<v1::AttemptEvent> event = NextOf(slot);
    if (!event) continue;
    *event->mutable_ref() = slot.attempt->ref();
    absl::MutexLock lock(&mutex_);
    for (Slot& live : slots_) {
      if (live.attempt == slot.attempt) live.sent = event->number();
    }
    return event;
  }
  for (const Slot& slot : Slots()) {
    std::optional<v1::Progress> progress = slot.attempt->TakeProgress();
    if (!progress || slot.attempt->ended()) continue;
    v1::AttemptEvent event;
    *event.mutable_ref() = slot.attempt->ref();
    *event.mutable_progress() = *std::move(progress);
    return event;
  }
  return std::nullopt;
}

}  // namespace kino::worker
