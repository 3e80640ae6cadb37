#include "server/frontend/link/commands.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/convert/status.h"

namespace kino::frontend {
namespace {

absl::Status ShuttingDown() { return absl::UnavailableError("the server is shutting down"); }

// Takes out those that `worker` was asked.
template <typename Map>
auto TakeOf(Map& map, const std::string& worker) {
  std::vector<decltype(map.begin()->second.done)> taken;
  for (auto it = map.begin(); it != map.end();) {
    if (it->second.worker != worker) {
      ++it;
      continue;
    }
    taken.push_back(std::move(it->second.done));
    it = map.erase(it);
  }
  return taken;
}

}  // namespace

int64_t Commands::Expect(const Peer& peer, CommandDone done) {
  open_[++last_id_] = {.worker = peer.name, .done = std::move(done)};
  return last_id_;
}

void Commands::SendModelCommand(const Peer& peer, const std::string& model, bool is_load,
                                CommandDone done) {
  v1::FrontendMessage message;
  const int64_t id = Expect(peer, std::move(done));
  if (is_load) {
    message.mutable_load_model()->set_command_id(id);
    message.mutable_load_model()->set_model(model);
  } else {
    message.mutable_unload_model()->set_command_id(id);
    message.mutable_unload_model()->set_model(model);
  }
  peer.stream->Send(std::move(message));
}

void Commands::LoadModel(const std::string& model, CommandDone done) {
  if (is_stopped_) return done(ShuttingDown());
  const scheduler::WorkerSnapshot* best = nullptr;
  bool best_has_it = false;
  const std::vector<scheduler::WorkerSnapshot> workers = registry_.Snapshot();
  for (const scheduler::WorkerSnapshot& worker : workers) {
    if (worker.session == 0 || worker.is_draining) continue;
    for (const scheduler::WorkerModel& served : worker.models) {
      if (served.name != model) continue;
      const bool is_better =
          best == nullptr || (served.loaded && !best_has_it) ||
          (served.loaded == best_has_it && worker.held.size() < best->held.size());
      if (is_better) {
        best = &worker;
        best_has_it = served.loaded;
      }
    }
  }
  const Peer* peer = best == nullptr ? nullptr : peers_.Find(best->name);
  if (peer == nullptr) {
    return done(absl::UnavailableError(absl::StrCat("no worker that serves '", model, "' is up")));
  }
  SendModelCommand(*peer, model, /*is_load=*/true, std::move(done));
}

void Commands::UnloadModel(const std::string& model, CommandDone done) {
  if (is_stopped_) return done(ShuttingDown());
  struct Shared {
    size_t open = 0;
    absl::Status status;
    CommandDone done;
  };
  const auto shared = std::make_shared<Shared>();
  shared->open = peers_.all().size();
  if (shared->open == 0) return done(absl::OkStatus());  // nowhere loaded
  shared->done = std::move(done);
  for (const auto& [session, peer] : peers_.all()) {
    SendModelCommand(peer, model, /*is_load=*/false, [shared](const absl::Status& status) {
      shared->status.Update(status);
      if (--shared->open == 0) shared->done(shared->status);
    });
  }
}

void Commands::CheckDevice(const Peer& peer, CommandDone done) {
  if (is_stopped_) return done(ShuttingDown());
  v1::FrontendMessage message;
  message.mutable_check_device()->set_command_id(Expect(peer, std::move(done)));
  peer.stream->Send(std::move(message));
}

void Commands::AskProfile(const std::string& kind, v1::ProfileQuery query, Profiles::Done done) {
  for (const scheduler::WorkerSnapshot& worker : registry_.Snapshot()) {
    if (is_stopped_) break;
    if (worker.session == 0 || worker.device.substr(0, worker.device.find(':')) != kind) continue;
    const bool serves = std::any_of(
        worker.models.begin(), worker.models.end(),
        [&](const scheduler::WorkerModel& served) { return served.name == query.model(); });
    const Peer* peer = serves ? peers_.Find(worker.name) : nullptr;
    if (peer == nullptr) continue;
    const int64_t id = ++last_id_;
    query.set_query_id(id);
    questions_[id] = {.worker = peer->name, .done = std::move(done)};
    v1::FrontendMessage message;
    *message.mutable_profile() = std::move(query);
    peer->stream->Send(std::move(message));
    return;
  }
  done(absl::UnavailableError(
      absl::StrCat("no worker on '", kind, "' that serves '", query.model(), "' is up")));
}

void Commands::OnResult(const v1::ModelCommandResult& result) {
  const auto found = open_.find(result.command_id());
  if (found == open_.end()) return;
  CommandDone done = std::move(found->second.done);
  open_.erase(found);
  done(convert::FromRpc(result.error()));
}

void Commands::OnProfile(const v1::ProfileAnswer& answer) {
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

void Commands::WorkerGone(const std::string& worker) {
  const absl::Status gone = absl::UnavailableError(absl::StrCat("worker ", worker, " went away"));
  for (CommandDone& done : TakeOf(open_, worker)) done(gone);
  for (Profiles::Done& done : TakeOf(questions_, worker)) done(gone);
}

void Commands::Stop() {
  is_stopped_ = true;
  for (auto& [id, open] : std::exchange(open_, {})) open.done(ShuttingDown());
  for (auto& [id, question] : std::exchange(questions_, {})) question.done(ShuttingDown());
}

}  // namespace kino::frontend
