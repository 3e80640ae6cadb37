#include "server/worker/link.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/fault_point.h"
#include "server/convert/duration.h"

namespace kino::worker {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;

}  // namespace

Link::Link(LinkOptions options, HeldAttempts& held, LinkDelegate& delegate,
           const scheduler::Clock& clock)
    : options_(std::move(options)),
      held_(held),
      delegate_(delegate),
      clock_(clock),
      last_contact_(clock.Monotonic()),
      lease_(options_.lease) {}

Link::~Link() { Stop(); }

void Link::Start() {
  {
    absl::MutexLock lock(&mutex_);
    last_contact_ = clock_.Monotonic();
  }
  dialler_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "link");
    DialLoop();
  });
}

void Link::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }
  Wake();
  if (dialler_.joinable()) dialler_.join();
}

void Link::Wake() {
  dialler_wakeup_.Signal();
  writer_wakeup_.Signal();
}

void Link::Notify() {
  {
    absl::MutexLock lock(&mutex_);
    notified_ = true;
  }
  Wake();
}

void Link::SendModelResult(v1::ModelCommandResult result) {
  {
    absl::MutexLock lock(&mutex_);
    model_results_.push_back(std::move(result));
  }
  Notify();
}

void Link::SendProfile(v1::ProfileAnswer answer) {
  {
    absl::MutexLock lock(&mutex_);
    profiles_.push_back(std::move(answer));
  }
  Notify();
}

void Link::SetDraining() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  Notify();
}

void Link::CheckLease() {
  absl::MutexLock lock(&mutex_);
  patience_.Round(clock_.Monotonic(), std::max(last_contact_, stream_began_));
  if (context_ == nullptr || !patience_.IsOver(lease_)) return;
  spdlog::warn("nothing heard from the frontend for {}: dialling again",
               absl::FormatDuration(lease_));
  context_->TryCancel();
}

absl::Duration Link::last_contact() const {
  absl::MutexLock lock(&mutex_);
  return last_contact_;
}

absl::Duration Link::lease() const {
  absl::MutexLock lock(&mutex_);
  return lease_;
}

absl::Status Link::refused() const {
  absl::MutexLock lock(&mutex_);
  return refused_;
}

void Link::Heard() {
  absl::MutexLock lock(&mutex_);
  last_contact_ = clock_.Monotonic();
}

void Link::DialLoop() {
  std::minstd_rand random(std::random_device{}());
  absl::Duration back_off = options_.back_off_min;
  while (true) {
    if (RunStream()) back_off = options_.back_off_min;
    // Half to all of it, so that many workers do not dial in step.
    const absl::Duration until =
        clock_.Monotonic() + back_off * std::uniform_real_distribution<double>(0.5, 1.0)(random);
    while (true) {
      {
        absl::MutexLock lock(&mutex_);
        if (stopping_ || !refused_.ok()) return;
      }
      const absl::Duration left = until - clock_.Monotonic();
      if (left <= absl::ZeroDuration()) break;
      dialler_wakeup_.Sleep(left);
    }
    back_off = std::min(back_off * 2, options_.back_off_max);
  }
}

bool Link::RunStream() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  // Channels otherwise share a connection's back-off; ours is the one that counts.
  arguments.SetInt("grpc.use_local_subchannel_pool", 1);
  auto stub = v1::WorkerService::NewStub(
      grpc::CreateCustomChannel(options_.address, grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return false;
    context_ = &context;
    stream_began_ = clock_.Monotonic();
    stream_ended_ = false;
  }
  std::unique_ptr<Stream> stream = stub->Link(&context);
  v1::WorkerMessage hello;
  *hello.mutable_hello() = delegate_.Hello();
  for (v1::AttemptRef& ref : held_.refs()) *hello.mutable_hello()->add_held() = std::move(ref);
  v1::FrontendMessage reply;
  const bool answered = stream->Write(hello) && stream->Read(&reply) && reply.has_hello_reply();
  if (answered) {
    TakeHelloReply(reply.hello_reply());
    std::thread writer([this, &stream] {
      pthread_setname_np(pthread_self(), "link-writer");
      WriteLoop(*stream);
    });
    ReadLoop(*stream);
    // The call is over, so a write that waits for the peer's window fails now.
    {
      absl::MutexLock lock(&mutex_);
      stream_ended_ = true;
    }
    writer_wakeup_.Signal();
    writer.join();
  } else if (reply.message_case() != v1::FrontendMessage::MESSAGE_NOT_SET) {
    context.TryCancel();  // It speaks, but not our protocol.
  }
  const grpc::Status status = stream->Finish();
  absl::MutexLock lock(&mutex_);
  context_ = nullptr;
  if (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION ||
      status.error_code() == grpc::StatusCode::UNAUTHENTICATED) {
    refused_ = absl::FailedPreconditionError(
        absl::StrCat("the frontend refused this worker: ", status.error_message()));
  } else if (!stopping_ && answered) {
    spdlog::warn("the link to the frontend broke: {}", status.error_message());
  }
  return answered;
}

void Link::TakeHelloReply(const v1::HelloReply& reply) {
  KINO_FAULT_POINT("worker.hello.replied");
  held_.Resume(reply.resumed());
  spdlog::info("linked to the frontend (version {}), {} attempts resumed", reply.server_version(),
               reply.resumed_size());
  absl::MutexLock lock(&mutex_);
  last_contact_ = clock_.Monotonic();
  notified_ = true;
  // Answers to what an earlier stream asked. Not later: this stream's questions may be answered
  // before its writer runs.
  profiles_.clear();
  if (convert::ToDuration(reply.heartbeat_interval()) > absl::ZeroDuration()) {
    heartbeat_interval_ = convert::ToDuration(reply.heartbeat_interval());
  }
  if (convert::ToDuration(reply.lease()) > absl::ZeroDuration())
    lease_ = convert::ToDuration(reply.lease());
}

void Link::ReadLoop(Stream& stream) {
  v1::FrontendMessage message;
  while (stream.Read(&message)) Dispatch(std::move(message));
}

void Link::Dispatch(v1::FrontendMessage message) {
  switch (message.message_case()) {
    case v1::FrontendMessage::kStart:
      delegate_.OnStart(std::move(*message.mutable_start()));
      break;
    case v1::FrontendMessage::kCancel:
      held_.Stop(message.cancel().ref(), StopReason::kCancelled);
      Notify();
      break;
    case v1::FrontendMessage::kDrop:
      held_.Drop(message.drop().ref());
      break;
    case v1::FrontendMessage::kDrain:
      delegate_.OnDrain();
      break;
    case v1::FrontendMessage::kLoadModel:
      delegate_.OnLoadModel(std::move(*message.mutable_load_model()));
      break;
    case v1::FrontendMessage::kUnloadModel:
      delegate_.OnUnloadModel(std::move(*message.mutable_unload_model()));
      break;
    case v1::FrontendMessage::kProfile:
      delegate_.OnProfile(std::move(*message.mutable_profile()));
      break;
    case v1::FrontendMessage::kCheckDevice:
      delegate_.OnCheckDevice(std::move(*message.mutable_check_device()));
      break;
    case v1::FrontendMessage::kAck:
      KINO_FAULT_POINT("worker.event.acknowledged");
      held_.Acknowledge(message.ack());
      break;
    case v1::FrontendMessage::kHeartbeatAck:
      Heard();
      break;
    case v1::FrontendMessage::kHelloReply:
    case v1::FrontendMessage::MESSAGE_NOT_SET:
      spdlog::warn("an unexpected message came over the worker link: {}",
                   static_cast<int>(message.message_case()));
  }
}

void Link::KeepResults(std::deque<v1::ModelCommandResult> results) {
  absl::MutexLock lock(&mutex_);
  model_results_.insert(model_results_.begin(), results.begin(), results.end());
}

bool Link::AwaitWork(absl::Duration next_heartbeat) {
  while (true) {
    const absl::Duration left = next_heartbeat - clock_.Monotonic();
    {
      absl::MutexLock lock(&mutex_);
      if (stream_ended_ || stopping_) return false;
      if (std::exchange(notified_, false) || left <= absl::ZeroDuration()) return true;
    }
    writer_wakeup_.Sleep(left);
  }
}

void Link::WriteLoop(Stream& stream) {
  absl::Duration next_heartbeat = -absl::InfiniteDuration();
  bool told_draining = false;
  while (true) {
    bool tell_draining = false;
    std::deque<v1::ModelCommandResult> results;
    std::deque<v1::ProfileAnswer> profiles;
    if (!AwaitWork(next_heartbeat)) return;
    {
      absl::MutexLock lock(&mutex_);
      tell_draining = draining_ && !told_draining;
      results.swap(model_results_);
      profiles.swap(profiles_);
    }
    v1::WorkerMessage message;
    if (tell_draining) {
      message.mutable_draining();
      if (!stream.Write(message)) return;
      told_draining = true;
    }
    if (!results.empty()) {
      // What the command changed must be known when its answer arrives.
      *message.mutable_heartbeat() = delegate_.Heartbeat();
      if (!stream.Write(message)) {
        KeepResults(std::move(results));
        return;
      }
    }
    while (!results.empty()) {
      *message.mutable_model_result() = results.front();
      if (!stream.Write(message)) {
        KeepResults(std::move(results));
        return;
      }
      results.pop_front();
    }
    for (v1::ProfileAnswer& answer : profiles) {
      *message.mutable_profile() = std::move(answer);
      if (!stream.Write(message)) return;
    }
    // Heartbeats go out between events too, however many wait.
    while (true) {
      if (const absl::Duration now = clock_.Monotonic(); now >= next_heartbeat) {
        *message.mutable_heartbeat() = delegate_.Heartbeat();
        if (!stream.Write(message)) return;
        absl::MutexLock lock(&mutex_);
        next_heartbeat = now + heartbeat_interval_;
      }
      std::optional<v1::AttemptEvent> event = held_.NextToSend();
      if (!event) break;
      *message.mutable_event() = *std::move(event);
      KINO_FAULT_POINT("worker.event.before_send");
      if (!stream.Write(message)) return;
      KINO_FAULT_POINT("worker.event.sent");
    }
  }
}

}  // namespace kino::worker
