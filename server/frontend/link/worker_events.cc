// The link's half that listens to workers: hello, heartbeats, and the events of attempts.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert/status.h"
#include "server/frontend/auth/token_table.h"
#include "server/frontend/link/session.h"
#include "server/frontend/link/worker_link.h"

namespace kino::frontend {
namespace {

constexpr int kProtocolVersion = 1;
constexpr size_t kMaxChunkBytes = size_t{256} * 1024;
constexpr size_t kMaxErrorBytes = 4096;

scheduler::AttemptRef FromProto(const v1::AttemptRef& ref) {
  return {.job_id = ref.job_id(), .attempt = ref.attempt(), .token = ref.token()};
}

void FillRef(const scheduler::AttemptRef& ref, v1::AttemptRef* out) {
  out->set_job_id(ref.job_id);
  out->set_attempt(ref.attempt);
  out->set_token(ref.token);
}

template <typename Models>
std::vector<scheduler::WorkerModel> FromProtoModels(const Models& models) {
  std::vector<scheduler::WorkerModel> out;
  for (const v1::WorkerModel& model : models) {
    out.push_back({.name = model.name(), .loaded = model.loaded()});
  }
  return out;
}

scheduler::FailureCause CauseOf(const v1::AttemptFailed& failed) {
  // The worker stops an attempt at its run_timeout itself.
  if (failed.error().code() == static_cast<int>(absl::StatusCode::kDeadlineExceeded)) {
    return scheduler::FailureCause::kRunTimeout;
  }
  switch (failed.cause()) {
    case v1::AttemptFailed::CLIENT:
      return scheduler::FailureCause::kClient;
    case v1::AttemptFailed::CANCELLED_BY_US:
      return scheduler::FailureCause::kCancelled;
    case v1::AttemptFailed::OUT_OF_MEMORY:
      return scheduler::FailureCause::kOutOfMemory;
    case v1::AttemptFailed::MODEL:
      return scheduler::FailureCause::kModel;
    case v1::AttemptFailed::INTERRUPTED:
      return scheduler::FailureCause::kInterrupted;
    default:
      return scheduler::FailureCause::kInternal;
  }
}

// A worker's word about an error; never OK, never longer than a person reads.
absl::Status ErrorOf(const v1::AttemptFailed& failed) {
  google::rpc::Status rpc = failed.error();
  if (rpc.message().size() > kMaxErrorBytes) {
    rpc.mutable_message()->resize(kMaxErrorBytes);
  }
  absl::Status status = convert::FromRpc(rpc);
  if (status.ok()) status = absl::InternalError("the worker gave no reason");
  return status;
}

void SetDuration(absl::Duration duration, google::protobuf::Duration* out) {
  out->set_seconds(absl::ToInt64Seconds(duration));
  out->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(duration - absl::Seconds(absl::ToInt64Seconds(duration)))));
}

}  // namespace

void WorkerLink::Handle(const std::shared_ptr<Session>& session, const v1::WorkerMessage& message) {
  Peer* peer = FindPeer(session.get());
  if (message.message_case() == v1::WorkerMessage::kHello) {
    const absl::Status greeted = peer != nullptr
                                     ? absl::FailedPreconditionError("a second hello on one stream")
                                     : HandleHello(session, message.hello());
    if (!greeted.ok()) {
      spdlog::warn("a worker was refused: {}", std::string(greeted.message()));
      session->Close(greeted);
    }
    return;
  }
  if (peer == nullptr) {
    session->Close(absl::FailedPreconditionError("the first message must be a hello"));
    return;
  }
  switch (message.message_case()) {
    case v1::WorkerMessage::kHeartbeat:
      HandleHeartbeat(*peer, message.heartbeat());
      break;
    case v1::WorkerMessage::kEvent:
      HandleEvent(*peer, message.event());
      break;
    case v1::WorkerMessage::kModelResult:
      HandleModelResult(message.model_result());
      break;
    case v1::WorkerMessage::kProfile:
      HandleProfile(message.profile());
      break;
    case v1::WorkerMessage::kDraining:
      spdlog::info("worker {}: takes no more attempts", peer->name);
      if (!registry_.StartDraining(peer->id).ok()) {
        session->Close(absl::AbortedError("this session was replaced"));
      }
      break;
    default:
      session->Close(absl::InvalidArgumentError("an empty or unknown message"));
  }
}

absl::Status WorkerLink::HandleHello(const std::shared_ptr<Session>& session,
                                     const v1::WorkerHello& hello) {
  if (!SecretsEqual(hello.link_secret(), options_.link_secret)) {
    return absl::UnauthenticatedError("the link secret does not match");
  }
  if (hello.protocol_version() != kProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "link protocol: expected version ", kProtocolVersion, ", got ", hello.protocol_version()));
  }
  if (!config::IsValidName(hello.worker())) {
    return absl::InvalidArgumentError("a worker's name is [a-z0-9][a-z0-9._-]{0,127}");
  }
  scheduler::WorkerHello known{.name = hello.worker(),
                               .process_id = hello.pid(),
                               .device = hello.device(),
                               .max_attempts = hello.max_attempts(),
                               .models = FromProtoModels(hello.models()),
                               .held = {}};
  for (const v1::AttemptRef& ref : hello.held()) known.held.push_back(FromProto(ref));
  const absl::StatusOr<scheduler::HelloResult> result = registry_.Hello(known);
  if (!result.ok()) return result.status();

  // A worker that came back before its old stream was seen to break.
  for (auto it = peers_.begin(); it != peers_.end();) {
    if (it->second.name != hello.worker()) {
      ++it;
      continue;
    }
    it->second.stream->Close(absl::AbortedError("the worker has another stream now"));
    it = peers_.erase(it);
  }
  const Peer& peer = peers_[session.get()] = {.stream = session,
                                              .id = result->session,
                                              .name = hello.worker(),
                                              .device = hello.device(),
                                              .device_memory_bytes = hello.device_memory_bytes(),
                                              .pid = hello.pid()};
  spdlog::info("worker {}: connected, {} ({}), pid {}, version {}, holds {} attempts", peer.name,
               peer.device, hello.device_name(), peer.pid, hello.version(), hello.held_size());
  {
    absl::MutexLock lock(&mutex_);
    absent_.erase(peer.name);
    memories_[peer.name] = {.worker = peer.name,
                            .device = peer.device,
                            .device_bytes = std::max<int64_t>(hello.device_memory_bytes(), 0),
                            .host_bytes = std::max<int64_t>(hello.host_memory_bytes(), 0)};
  }
  parts_.metrics.SetWorkerUp(peer.name, peer.device, true);
  parts_.metrics.SetDeviceMemory(peer.name, peer.device, 0, peer.device_memory_bytes);
  // First of all: what ends with the lost attempts may give this worker a new one at once.
  ReplyToHello(peer, *result);
  for (const scheduler::LostAttempt& lost : result->lost) HandleLost(lost);
  dispatcher_.Pump();
  return absl::OkStatus();
}

void WorkerLink::ReplyToHello(const Peer& peer, const scheduler::HelloResult& result) {
  v1::FrontendMessage message;
  v1::HelloReply& reply = *message.mutable_hello_reply();
  reply.set_server_version(KINO_VERSION);
  SetDuration(options_.link.heartbeat_interval, reply.mutable_heartbeat_interval());
  SetDuration(options_.link.lease, reply.mutable_lease());
  std::vector<scheduler::AttemptRef> dropped = result.dropped;
  std::vector<Live*> resumed;
  for (const scheduler::AttemptRef& ref : result.resumed) {
    Live* live = FindLive(ref);
    if (live == nullptr) {
      registry_.Release(ref);
      dropped.push_back(ref);
      continue;
    }
    v1::AttemptAck& ack = *reply.add_resumed();
    FillRef(ref, ack.mutable_ref());
    ack.set_number(live->applied.value_or(0));
    ack.set_offset(live->writer->size());
    resumed.push_back(live);
    spdlog::info("job {} attempt {}: goes on with worker {} from byte {}", ref.job_id, ref.attempt,
                 peer.name, live->writer->size());
  }
  peer.stream->Send(std::move(message));
  for (const scheduler::AttemptRef& ref : dropped) Drop(peer, ref);
  for (Live* live : resumed) {
    if (live->cancel_deadline != absl::InfiniteDuration()) {
      live->cancel_deadline = absl::InfiniteDuration();
      AskToCancel(*live);
    }
  }
}

void WorkerLink::HandleHeartbeat(const Peer& peer, const v1::WorkerHeartbeat& heartbeat) {
  const absl::Status renewed = registry_.Heartbeat(peer.id, heartbeat.progress_counter(),
                                                   FromProtoModels(heartbeat.models()));
  if (!renewed.ok()) {
    peer.stream->Close(renewed);
    return;
  }
  parts_.metrics.SetDeviceMemory(peer.name, peer.device, heartbeat.device_memory_used_bytes(),
                                 peer.device_memory_bytes);
  v1::FrontendMessage message;
  message.mutable_heartbeat_ack();
  peer.stream->Send(std::move(message));
}

void WorkerLink::HandleEvent(const Peer& peer, const v1::AttemptEvent& event) {
  const scheduler::AttemptRef ref = FromProto(event.ref());
  const absl::StatusOr<scheduler::SessionId> holder = registry_.Holder(ref);
  Live* live = FindLive(ref);
  if (!holder.ok() || *holder != peer.id || live == nullptr) {
    parts_.metrics.StaleMessage();
    spdlog::info("job {} attempt {}: refused worker {}'s message, the attempt is not its own",
                 ref.job_id.substr(0, 64), ref.attempt, peer.name);
    Drop(peer, ref);
    return;
  }
  if (event.number() == 0) {
    if (event.has_progress()) HandleProgress(*live, event.progress());
    return;
  }
  if (live->is_finishing) return;  // all there can be has been said
  if (live->applied.has_value() && event.number() <= *live->applied) {
    Ack(peer, ref, *live->applied, live->writer->size());
    return;
  }
  const absl::Status applied = ApplyEvent(peer, *live, event);
  if (applied.ok()) return;
  spdlog::warn("job {} attempt {}: {}", ref.job_id, ref.attempt, std::string(applied.message()));
  Drop(peer, ref);
  EndWithoutResult(ref,
                   {.cause = scheduler::FailureCause::kInternal, .error = applied, .stats = ""});
}

absl::Status WorkerLink::ApplyEvent(const Peer& peer, Live& live, const v1::AttemptEvent& event) {
  const scheduler::AttemptRef ref = live.ref;
  const int64_t number = event.number();
  if (number < 0 || (live.applied.has_value() && number != *live.applied + 1)) {
    return absl::InternalError(
        absl::StrCat("the worker sent event ", number, " after event ", live.applied.value_or(0)));
  }
  switch (event.event_case()) {
    case v1::AttemptEvent::kStarted: {
      if (event.started().has_plan()) live.plan = event.started().plan();
      const absl::StatusOr<scheduler::Job> recorded = parts_.store.RecordStats(
          ref, EncodeStats({}, live.plan.has_value() ? &*live.plan : nullptr));
      // The plan is told again with the result; a store that is full for now costs nothing here.
      if (!recorded.ok()) spdlog::warn("job {}: {}", ref.job_id, recorded.status().ToString());
      break;
    }
    case v1::AttemptEvent::kChunk: {
      const v1::Chunk& chunk = event.chunk();
      if (chunk.data().size() > kMaxChunkBytes) {
        return absl::InternalError(absl::StrCat("the worker sent a chunk of ", chunk.data().size(),
                                                " bytes; at most ", kMaxChunkBytes));
      }
      const absl::Status appended = live.writer->Append(chunk.offset(), chunk.data());
      if (absl::IsOutOfRange(appended)) {
        return absl::InternalError(absl::StrCat("the worker's ", appended.message()));
      }
      if (!appended.ok()) return appended;
      parts_.hub.OnBytes(ref.job_id, ref.attempt, live.writer->size());
      break;
    }
    case v1::AttemptEvent::kDone:
      BeginCommit(live, event.done(), number);
      return absl::OkStatus();
    case v1::AttemptEvent::kFailed: {
      const v1::AttemptFailed& failed = event.failed();
      parts_.metrics.AttemptStages(live.model, failed.stages());
      const std::string stats =
          EncodeStats(failed.stages(), live.plan.has_value() ? &*live.plan : nullptr);
      const int64_t offset = live.writer->size();
      EndWithoutResult(ref, {.cause = CauseOf(failed), .error = ErrorOf(failed), .stats = stats});
      Ack(peer, ref, number, offset);
      return absl::OkStatus();
    }
    default:
      return absl::InternalError("the worker sent an event of an unknown kind");
  }
  live.applied = number;
  Ack(peer, ref, number, live.writer->size());
  return absl::OkStatus();
}

void WorkerLink::HandleProgress(const Live& live, const v1::Progress& progress) {
  if (!std::isfinite(progress.fraction()) || !v1::Stage_IsValid(progress.stage())) return;
  v1::Progress out;
  out.set_attempt(live.ref.attempt);
  out.set_pass(progress.pass());
  out.set_total_passes(progress.total_passes());
  out.set_stage(progress.stage());
  out.set_step(progress.step());
  out.set_total_steps(progress.total_steps());
  out.set_fraction(std::clamp(progress.fraction(), 0.0, 1.0));
  if (progress.has_eta() && progress.eta().seconds() >= 0) *out.mutable_eta() = progress.eta();
  parts_.hub.OnProgress(live.ref.job_id, std::move(out));
}

void WorkerLink::HandleModelResult(const v1::ModelCommandResult& result) {
  const auto found = commands_.find(result.command_id());
  if (found == commands_.end()) return;
  CommandDone done = std::move(found->second.done);
  commands_.erase(found);
  done(convert::FromRpc(result.error()));
}

void WorkerLink::HandleProfile(const v1::ProfileAnswer& answer) {
  const auto found = questions_.find(answer.query_id());
  if (found == questions_.end()) return;
  Profiles::Done done = std::move(found->second.done);
  questions_.erase(found);
  if (answer.has_error()) {
    done(convert::FromRpc(answer.error()));
  } else {
    done(answer.profile());
  }
}

void WorkerLink::Ack(const Peer& peer, const scheduler::AttemptRef& ref, int64_t number,
                     int64_t offset) {
  v1::FrontendMessage message;
  FillRef(ref, message.mutable_ack()->mutable_ref());
  message.mutable_ack()->set_number(number);
  message.mutable_ack()->set_offset(offset);
  peer.stream->Send(std::move(message));
}

void WorkerLink::Drop(const Peer& peer, const scheduler::AttemptRef& ref) {
  v1::FrontendMessage message;
  FillRef(ref, message.mutable_drop()->mutable_ref());
  peer.stream->Send(std::move(message));
}

}  // namespace kino::frontend
