// What workers were asked beside attempts and have not answered: to load and unload models, to
// check their device, to tell profiles. Belongs to the link's strand.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "kino/v1/worker.pb.h"
#include "scheduler/workers/registry.h"
#include "server/frontend/link/peers.h"
#include "server/frontend/profiles/profiles.h"

namespace kino::frontend {

using CommandDone = absl::AnyInvocable<void(absl::Status)>;

class Commands {
 public:
  // Both outlive this.
  Commands(Peers& peers, const scheduler::WorkerRegistry& registry)
      : peers_(peers), registry_(registry) {}

  // On the worker that holds the model, or that is least busy. UNAVAILABLE: no worker that serves
  // it is up. FAILED_PRECONDITION and others: as the worker says.
  void LoadModel(const std::string& model, CommandDone done);
  // On every worker that is up.
  void UnloadModel(const std::string& model, CommandDone done);
  void CheckDevice(const Peer& peer, CommandDone done);
  // See Profiles::Ask. Answered beside a run, so how busy a worker is does not matter.
  void AskProfile(const std::string& kind, v1::ProfileQuery query, Profiles::Done done);

  void OnResult(const v1::ModelCommandResult& result);
  void OnProfile(const v1::ProfileAnswer& answer);

  // What the worker was asked fails with UNAVAILABLE.
  void WorkerGone(const std::string& worker);
  // So does everything else, now and later.
  void Stop();

 private:
  struct Open {
    std::string worker;
    CommandDone done;
  };
  struct Question {
    std::string worker;
    Profiles::Done done;
  };
  int64_t Expect(const Peer& peer, CommandDone done);
  void SendModelCommand(const Peer& peer, const std::string& model, bool is_load, CommandDone done);

  Peers& peers_;
  const scheduler::WorkerRegistry& registry_;
  std::map<int64_t, Open> open_;
  std::map<int64_t, Question> questions_;
  int64_t last_id_ = 0;
  bool is_stopped_ = false;
};

}  // namespace kino::frontend
