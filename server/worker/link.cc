#include "server/worker/link.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace kino::worker {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

}  // namespace

Link::Link(LinkOptions options, HeldAttempts& held, LinkDelegate& delegate)
    : options_(std::move(options)),
      held_(held),
      delegate_(delegate),
      last_contact_(absl::Now()),
      lease_(options_.lease) {}

Link::~Link() { Stop(); }

void Link::Start() {
  {
    absl::MutexLock lock(&mutex_);
    last_contact_ = absl::Now();
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
    changed_.SignalAll();
  }
  if (dialler_.joinable()) dialler_.join();
}

void Link::Notify() {
  absl::MutexLock lock(&mutex_);
  notified_ = true;
  changed_.SignalAll();
}

void Link::SendModelResult(v1::ModelCommandResult result) {
  absl::MutexLock lock(&mutex_);
  model_results_.push_back(std::move(result));
  notified_ = true;
  changed_.SignalAll();
}

void Link::SendProfile(v1::ProfileAnswer answer) {
  absl::MutexLock lock(&mutex_);
  profiles_.push_back(std::move(answer));
  notified_ = true;
  changed_.SignalAll();
}

void Link::SetDraining() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  notified_ = true;
  changed_.SignalAll();
}

void Link::CheckLease(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (context_ == nullptr) return;
  if (now - std::max(last_contact_, stream_began_) < lease_) return;
  spdlog::warn("nothing heard from the frontend for {}: dialling again",
               absl::FormatDuration(lease_));
  context_->TryCancel();
}

absl::Time Link::last_contact() const {
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
  last_contact_ = absl::Now();
}

void Link::DialLoop() {
  std::minstd_rand random(std::random_device{}());
  absl::Duration back_off = options_.back_off_min;
  while (true) {
    if (RunStream()) back_off = options_.back_off_min;
    absl::MutexLock lock(&mutex_);
    if (stopping_ || !refused_.ok()) return;
    // Half to all of it, so that many workers do not dial in step.
    const absl::Time until =
        absl::Now() + back_off * std::uniform_real_distribution<double>(0.5, 1.0)(random);
    while (!stopping_ && absl::Now() < until) changed_.WaitWithDeadline(&mutex_, until);
    if (stopping_) return;
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
    stream_began_ = absl::Now();
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
      changed_.SignalAll();
    }
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
  held_.Resume(reply.resumed());
  spdlog::info("linked to the frontend (version {}), {} attempts resumed", reply.server_version(),
               reply.resumed_size());
  absl::MutexLock lock(&mutex_);
  last_contact_ = absl::Now();
  notified_ = true;
  // Answers to what an earlier stream asked. Not later: this stream's questions may be answered
  // before its writer runs.
  profiles_.clear();
  if (FromProto(reply.heartbeat_interval()) > absl::ZeroDuration()) {
    heartbeat_interval_ = FromProto(reply.heartbeat_interval());
  }
  if (FromProto(reply.lease()) > absl::ZeroDuration()) lease_ = FromProto(reply.lease());
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
      if (auto attempt = held_.Find(message.cancel().ref())) {
        attempt->Stop(StopReason::kCancelled);
      }
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
    case v1::FrontendMessage::kAck:
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

void Link::WriteLoop(Stream& stream) {
  absl::Time next_heartbeat = absl::InfinitePast();
  bool told_draining = false;
  while (true) {
    bool tell_draining = false;
    std::deque<v1::ModelCommandResult> results;
    std::deque<v1::ProfileAnswer> profiles;
    {
      absl::MutexLock lock(&mutex_);
      while (!stream_ended_ && !stopping_ && !notified_ && absl::Now() < next_heartbeat) {
        changed_.WaitWithDeadline(&mutex_, next_heartbeat);
      }
      if (stream_ended_ || stopping_) return;
      notified_ = false;
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
      if (const absl::Time now = absl::Now(); now >= next_heartbeat) {
        *message.mutable_heartbeat() = delegate_.Heartbeat();
        if (!stream.Write(message)) return;
        absl::MutexLock lock(&mutex_);
        next_heartbeat = now + heartbeat_interval_;
      }
      auto event = held_.NextToSend();
      if (!event.ok()) {
        spdlog::error("cannot read an attempt's spool: {}", std::string(event.status().message()));
        return;
      }
      if (!event->has_value()) break;
      *message.mutable_event() = **std::move(event);
      if (!stream.Write(message)) return;
    }
  }
}

}  // namespace kino::worker
