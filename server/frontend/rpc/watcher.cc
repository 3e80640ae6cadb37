#include "server/frontend/rpc/watcher.h"

#include <utility>

#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/request_check.h"
#include "server/frontend/rpc/submission.h"

namespace kino::frontend {

std::shared_ptr<Watcher> Watcher::Make(const Context& context) {
  std::shared_ptr<Watcher> watcher(new Watcher(context));
  watcher->self_ = watcher;
  return watcher;
}

bool Watcher::TakePlace(const absl::StatusOr<Caller>& caller) {
  if (!caller.ok()) {
    End(caller.status());
    return false;
  }
  place_ = context_.streams.TryTake(caller->line);
  if (place_ == nullptr) End(ServerBusy("streams are open"));
  return place_ != nullptr;
}

Watcher* Watcher::Watch(const Context& context, const absl::StatusOr<Caller>& caller,
                        const v1::WatchJobRequest& request) {
  const std::shared_ptr<Watcher> watcher = Make(context);
  if (!watcher->TakePlace(caller)) return watcher.get();
  Executor::Task task = [watcher, tenant = caller->tenant, request = request]() mutable {
    const absl::Status known = CheckEnvelope(request);
    if (!known.ok()) return watcher->End(known);
    watcher->Begin(tenant, std::move(request));
  };
  if (!context.watch.TryPost(caller->line, task)) watcher->End(ServerBusy("calls wait"));
  return watcher.get();
}

Watcher* Watcher::Generate(const Context& context, const absl::StatusOr<Caller>& caller,
                           const v1::GenerateRequest* request) {
  const std::shared_ptr<Watcher> watcher = Make(context);
  if (!watcher->TakePlace(caller)) return watcher.get();
  Executor::Task task = [watcher, caller = *caller, request] {
    SubmitJob(watcher->context_, caller, *request,
              [watcher, tenant = caller.tenant](const absl::StatusOr<scheduler::Job>& job) {
                if (!job.ok()) return watcher->End(job.status());
                v1::WatchJobRequest from;
                from.set_id(job->id);
                watcher->Begin(tenant, std::move(from));
              });
  };
  if (!context.rpc.TryPost(caller->line, task)) watcher->End(ServerBusy("calls wait"));
  return watcher.get();
}

void Watcher::Begin(const std::string& tenant, v1::WatchJobRequest from) {
  cursor_.emplace(WatchSources{.store = context_.store,
                               .files = context_.files,
                               .hub = context_.hub,
                               .queue = context_.queue,
                               .metrics = context_.metrics,
                               .clock = context_.clock,
                               .result_ttl = context_.config.retention.results},
                  tenant, std::move(from));
  Step();
}

void Watcher::PostStep() {
  context_.watch.Post([self = shared_from_this()] { self->Step(); });
}

void Watcher::Wake() {
  if (gate_.Wake()) PostStep();
}

void Watcher::OnWriteDone(bool ok) {
  if (!ok) is_cancelled_ = true;
  // Still busy: the step after a write.
  PostStep();
}

void Watcher::OnCancel() {
  is_cancelled_ = true;
  Wake();
}

void Watcher::OnDone() {
  // The hub's reader and the place go now, the object with the last step that was posted.
  cursor_.reset();
  place_.reset();
  std::shared_ptr<Watcher> self = std::move(self_);
}

void Watcher::Step() {
  gate_.Run([this] { return Send(); });
}

Look Watcher::Send() {
  const auto end = [this](const absl::Status& status) {
    End(status);
    return Look::kBusy;
  };
  if (is_cancelled_) return end(absl::CancelledError("the watch was cancelled"));
  if (!has_begun_) {
    const absl::Status begun = cursor_->Begin(shared_from_this());
    if (!begun.ok()) return end(begun);
    has_begun_ = true;
  }
  const absl::StatusOr<WatchCursor::Next> next = cursor_->Take(event_);
  if (!next.ok()) return end(next.status());
  switch (*next) {
    case WatchCursor::Next::kNothing:
      return Look::kNothing;
    case WatchCursor::Next::kEnd:
      return end(absl::OkStatus());
    case WatchCursor::Next::kEvent:
      break;
  }
  StartWrite(&event_);
  return Look::kBusy;
}

}  // namespace kino::frontend
