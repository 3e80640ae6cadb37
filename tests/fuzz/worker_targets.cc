// What the frontend says over the link, through the worker's held attempts: whatever it says, the
// events of an attempt that is held are sent in order, each once after each hello, and hold what
// was put in.
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/logging.h"
#include "kino/v1/worker.pb.h"
#include "server/worker/held_attempts.h"
#include "tests/fuzz/framed.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/temp_dir.h"

namespace kino::fuzz {
namespace {

constexpr size_t kMaxHeld = 8;
constexpr int kMaxSends = 1000;

using Key = std::tuple<std::string, int, std::string>;

Key KeyOf(const v1::AttemptRef& ref) { return {ref.job_id(), ref.attempt(), ref.token()}; }

// A worker without its engine and its stream.
class WorkerSide {
 public:
  // As worker::Link does with it.
  void Receive(const v1::FrontendMessage& message);
  // All there is to send.
  void Send();

 private:
  // What has been sent and acknowledged of a held attempt.
  struct Place {
    int64_t sent = 0;
    int64_t acknowledged = 0;
  };

  void Start(const v1::StartAttempt& command);
  void Acknowledge(const v1::AttemptAck& ack);
  static std::string DataOf(int64_t number) { return absl::StrCat("data of event ", number); }

  kino::testing::TempDir folder_;
  worker::HeldAttempts held_{scheduler::RealFiles(), folder_.path()};
  std::map<Key, Place> places_;
};

// The first attempt waits for the engine, the others run; every second one has ended.
void WorkerSide::Start(const v1::StartAttempt& command) {
  if (held_.refs().size() >= kMaxHeld) return;
  const auto attempt = held_.Add(command);
  Require(attempt.ok() != places_.contains(KeyOf(command.ref())), "an attempt is held once");
  if (!attempt.ok()) return;
  places_[KeyOf(command.ref())] = {};
  if (held_.refs().size() == 1) return;
  Require((*attempt)->Begin(absl::Seconds(1)), "an attempt that waits can begin");
  int64_t offset = 0;
  for (int64_t number = 1; number <= 3; ++number) {
    v1::AttemptEvent event;
    event.mutable_chunk()->set_offset(offset);
    event.mutable_chunk()->set_data(DataOf(number));
    offset += static_cast<int64_t>(DataOf(number).size());
    Require((*attempt)->spool().Append(event).ok(), "an event is kept");
  }
  (*attempt)->SetProgress(v1::Progress());
  if (held_.refs().size() % 2 == 0) return;
  v1::AttemptEvent done;
  done.mutable_done();
  Require((*attempt)->spool().Append(done).ok(), "the last event is kept");
  (*attempt)->MarkEnded();
}

void WorkerSide::Acknowledge(const v1::AttemptAck& ack) {
  const auto place = places_.find(KeyOf(ack.ref()));
  if (place == places_.end()) return;
  if (const auto attempt = held_.Find(ack.ref())) {
    const int64_t there = std::min(ack.number(), attempt->spool().last_number());
    place->second.acknowledged = std::max(place->second.acknowledged, there);
  }
}

void WorkerSide::Receive(const v1::FrontendMessage& message) {
  switch (message.message_case()) {
    case v1::FrontendMessage::kStart:
      return Start(message.start());
    case v1::FrontendMessage::kCancel:
      return held_.Stop(message.cancel().ref(), worker::StopReason::kCancelled);
    case v1::FrontendMessage::kDrop:
      held_.Drop(message.drop().ref());
      Require(held_.Find(message.drop().ref()) == nullptr, "what is dropped is not held");
      break;
    case v1::FrontendMessage::kAck:
      Acknowledge(message.ack());
      held_.Acknowledge(message.ack());
      break;
    case v1::FrontendMessage::kHelloReply:
      for (const v1::AttemptAck& ack : message.hello_reply().resumed()) {
        Acknowledge(ack);
        if (const auto place = places_.find(KeyOf(ack.ref())); place != places_.end())
          place->second.sent = ack.number();
      }
      held_.Resume(message.hello_reply().resumed());
      break;
    default:
      break;
  }
  std::erase_if(places_, [&](const auto& entry) {
    v1::AttemptRef ref;
    std::tie(*ref.mutable_job_id(), std::ignore, *ref.mutable_token()) = entry.first;
    ref.set_attempt(std::get<1>(entry.first));
    return held_.Find(ref) == nullptr;
  });
}

void WorkerSide::Send() {
  for (int sends = 0;; ++sends) {
    Require(sends < kMaxSends, "there is an end of what is to be sent");
    const std::optional<v1::AttemptEvent> event = held_.NextToSend();
    if (!event) return;
    Require(!event->has_failed(), "what is kept can be sent");
    const auto place = places_.find(KeyOf(event->ref()));
    Require(place != places_.end(), "only of held attempts something is sent");
    if (event->has_progress()) continue;
    const int64_t number = event->number();
    Require(number == std::max(place->second.sent, place->second.acknowledged) + 1,
            "events are sent in order, from there");
    Require(!event->has_chunk() || event->chunk().data() == DataOf(number),
            "an event is sent as it was put in");
    place->second.sent = number;
  }
}

bool RunFrontendMessages(std::string_view bytes) {
  [[maybe_unused]] static const auto log = google::protobuf::SetLogHandler(nullptr);
  const auto messages = Messages<v1::FrontendMessage>(bytes);
  if (!messages.has_value()) return false;
  WorkerSide side;
  for (const v1::FrontendMessage& message : *messages) {
    side.Receive(message);
    side.Send();
  }
  return true;
}

std::vector<std::string> FrontendMessagesSeeds() {
  std::vector<v1::FrontendMessage> all;
  v1::AttemptRef ref;
  for (int attempt = 1; attempt <= 3; ++attempt) {
    ref.set_job_id("j");
    ref.set_attempt(attempt);
    ref.set_token("t");
    *all.emplace_back().mutable_start()->mutable_ref() = ref;
  }
  v1::AttemptAck ack;
  *ack.mutable_ref() = ref;
  ack.set_number(2);
  *all.emplace_back().mutable_ack() = ack;
  std::vector<std::string> seeds = {Framed(all)};
  // A redial: the last goes on from further back, the second one's place is not known.
  v1::FrontendMessage reply;
  ack.set_number(1);
  *reply.mutable_hello_reply()->add_resumed() = ack;
  ack.mutable_ref()->set_attempt(2);
  ack.set_number(0);
  *reply.mutable_hello_reply()->add_resumed() = ack;
  all.push_back(reply);
  seeds.push_back(Framed(all));
  ack.mutable_ref()->set_attempt(3);
  ack.set_number(4);
  *all.emplace_back().mutable_ack() = ack;
  *all.emplace_back().mutable_cancel()->mutable_ref() = ref;
  ref.set_attempt(2);
  *all.emplace_back().mutable_drop()->mutable_ref() = ref;
  seeds.push_back(Framed(all));
  return seeds;
}

}  // namespace

std::vector<FuzzTarget> WorkerTargets() {
  return {{"frontend_messages", RunFrontendMessages, FrontendMessagesSeeds, 10000}};
}

}  // namespace kino::fuzz
