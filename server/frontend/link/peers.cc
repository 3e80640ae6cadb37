#include "server/frontend/link/peers.h"

#include <algorithm>
#include <utility>

namespace kino::frontend {

const Peer& Peers::Add(Peer peer) {
  for (auto it = peers_.begin(); it != peers_.end();) {
    if (it->second.name != peer.name) {
      ++it;
      continue;
    }
    it->second.stream->Close(absl::AbortedError("the worker has another stream now"));
    it = peers_.erase(it);
  }
  const Session* session = peer.stream.get();
  return peers_[session] = std::move(peer);
}

std::optional<Peer> Peers::Remove(const Session* session) {
  const auto found = peers_.find(session);
  if (found == peers_.end()) return std::nullopt;
  Peer peer = std::move(found->second);
  peers_.erase(found);
  return peer;
}

Peer* Peers::Find(const Session* session) {
  const auto found = peers_.find(session);
  return found == peers_.end() ? nullptr : &found->second;
}

Peer* Peers::Find(const std::string& worker) {
  for (auto& [session, peer] : peers_) {
    if (peer.name == worker) return &peer;
  }
  return nullptr;
}

Peer* Peers::Find(scheduler::SessionId session) {
  for (auto& [stream, peer] : peers_) {
    if (peer.id == session) return &peer;
  }
  return nullptr;
}

scheduler::AttemptRef FromProto(const v1::AttemptRef& ref) {
  return {.job_id = ref.job_id(), .attempt = ref.attempt(), .token = ref.token()};
}

v1::AttemptRef ToProto(const scheduler::AttemptRef& ref) {
  v1::AttemptRef out;
  out.set_job_id(ref.job_id);
  out.set_attempt(ref.attempt);
  out.set_token(ref.token);
  return out;
}

v1::Receipt ReceiptOf(const Peer& peer, const std::string& model) {
  v1::Receipt receipt;
  receipt.set_worker(peer.name);
  receipt.set_worker_version(peer.version);
  receipt.set_device(peer.device);
  receipt.set_device_name(peer.device_name);
  if (const auto found = peer.models.find(model); found != peer.models.end()) {
    receipt.set_model_sha256(found->second.fingerprint());
    receipt.set_weights_sha256(found->second.weights_sha256());
  }
  return receipt;
}

void SendAck(const Peer& peer, const scheduler::AttemptRef& ref, int64_t number, int64_t offset) {
  v1::FrontendMessage message;
  *message.mutable_ack()->mutable_ref() = ToProto(ref);
  message.mutable_ack()->set_number(number);
  message.mutable_ack()->set_offset(offset);
  peer.stream->Send(std::move(message));
}

void SendDrop(const Peer& peer, const scheduler::AttemptRef& ref) {
  v1::FrontendMessage message;
  *message.mutable_drop()->mutable_ref() = ToProto(ref);
  peer.stream->Send(std::move(message));
}

void SendCancel(const Peer& peer, const scheduler::AttemptRef& ref) {
  v1::FrontendMessage message;
  *message.mutable_cancel()->mutable_ref() = ToProto(ref);
  peer.stream->Send(std::move(message));
}

}  // namespace kino::frontend
