// The workers that are connected, and what is sent to them. Belongs to the link's strand.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "kino/v1/worker.pb.h"
#include "scheduler/jobs/job.h"
#include "scheduler/workers/registry.h"
#include "server/frontend/link/session.h"

namespace kino::frontend {

struct Peer {
  std::shared_ptr<Session> stream;
  scheduler::SessionId id = 0;
  std::string name;
  std::string device;
  std::string device_name;
  std::string version;
  std::map<std::string, v1::WorkerModel> models;  // by name
  int64_t device_memory_bytes = 0;
  int64_t device_memory_used_bytes = 0;  // as the last heartbeat said
  int pid = 0;
};

class Peers {
 public:
  // Closes the stream that another peer of this name has.
  const Peer& Add(Peer peer);
  // The peer that was on this stream; nothing: none, or it has another one by now.
  std::optional<Peer> Remove(const Session* session);

  Peer* Find(const Session* session);
  Peer* Find(const std::string& worker);
  Peer* Find(scheduler::SessionId session);
  const std::map<const Session*, Peer>& all() const { return peers_; }

 private:
  std::map<const Session*, Peer> peers_;
};

// What the receipt of a job of `model` tells of its worker.
v1::Receipt ReceiptOf(const Peer& peer, const std::string& model);

void SendAck(const Peer& peer, const scheduler::AttemptRef& ref, int64_t number, int64_t offset);
void SendDrop(const Peer& peer, const scheduler::AttemptRef& ref);
void SendCancel(const Peer& peer, const scheduler::AttemptRef& ref);

scheduler::AttemptRef FromProto(const v1::AttemptRef& ref);
v1::AttemptRef ToProto(const scheduler::AttemptRef& ref);

}  // namespace kino::frontend
