#include "server/frontend/rpc/model_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/command_line/utf8.h"
#include "server/convert/request.h"
#include "server/frontend/rpc/placement.h"
#include "server/frontend/rpc/submission.h"
#include "server/frontend/rpc/unary.h"

namespace kino::frontend {
namespace {

// For a worker's word about what runs need; a list asks for every model.
constexpr absl::Duration kPlansWait = absl::Seconds(2);
constexpr absl::Duration kListWait = absl::Milliseconds(250);

}  // namespace

Asker ModelService::AskerFor(const std::string& tenant, absl::Duration wait) const {
  return {.profiles = context_.profiles, .tenant = tenant, .deadline = absl::Now() + wait};
}

v1::Model ModelService::View(const CatalogEntry& entry, Plans plans, const Asker& asker) const {
  v1::Model out = ToProto(entry);
  if (entry.description.ok()) {
    engine::Request request = entry.description->Tasks().front().defaults;
    if (engine::Denoises(request.task))
      request.prompt = std::string(convert::kUnknownPromptBytes, 'x');
    request.plan = entry.config.plan;
    const engine::ResolvedRequest resolved =
        engine::ResolveRequest(*entry.description, request, /*draw_seed=*/0);
    // Defaults that cannot run have no plans: they may be the family's, for larger models.
    if (resolved.violations.empty()) {
      const auto estimates =
          Estimate(entry, resolved.request,
                   Targets(context_.config.workers, context_.link.Memories()), asker);
      if (estimates.ok()) out.mutable_memory()->Assign(estimates->begin(), estimates->end());
    }
  }
  if (plans == Plans::kLeftOut) {
    for (v1::MemoryEstimate& memory : *out.mutable_memory()) memory.clear_plans();
  }
  for (const scheduler::WorkerSnapshot& worker : context_.link.Workers()) {
    if (worker.session == 0) continue;
    for (const scheduler::WorkerModel& model : worker.models) {
      if (model.name != entry.config.name) continue;
      v1::ModelOnWorker& where = *out.add_workers();
      where.set_worker(worker.name);
      where.set_device(worker.device);
      where.set_loaded(model.loaded);
    }
  }
  return out;
}

absl::StatusOr<const CatalogEntry*> ModelService::Find(const std::string& name) const {
  const CatalogEntry* entry = context_.catalog.Find(name);
  if (entry != nullptr) return entry;
  return WithErrorInfo(
      absl::NotFoundError(absl::StrCat("no model '", command_line::TruncateUtf8(name, 128),
                                       "'; known: ", context_.catalog.Names())),
      "MODEL_NOT_FOUND");
}

grpc::ServerUnaryReactor* ModelService::ListModels(grpc::CallbackServerContext* call,
                                                   const v1::ListModelsRequest* request,
                                                   v1::ListModelsResponse* response) {
  return ServeUnary(context_, context_.slow, call, request,
                    [this, response](const std::string& tenant) {
                      const Asker asker = AskerFor(tenant, kListWait);
                      for (const CatalogEntry& entry : context_.catalog.entries()) {
                        *response->add_models() = View(entry, Plans::kLeftOut, asker);
                      }
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* ModelService::GetModel(grpc::CallbackServerContext* call,
                                                 const v1::GetModelRequest* request,
                                                 v1::Model* response) {
  return ServeUnary(context_, context_.slow, call, request,
                    [this, request, response](const std::string& tenant) -> absl::Status {
                      const auto entry = Find(request->name());
                      if (!entry.ok()) return entry.status();
                      *response = View(**entry, Plans::kListed, AskerFor(tenant, kPlansWait));
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* ModelService::LoadModel(grpc::CallbackServerContext* call,
                                                  const v1::LoadModelRequest* request,
                                                  v1::Model* response) {
  return Command(call, *request, request->name(), /*is_load=*/true, response);
}

grpc::ServerUnaryReactor* ModelService::UnloadModel(grpc::CallbackServerContext* call,
                                                    const v1::UnloadModelRequest* request,
                                                    v1::Model* response) {
  return Command(call, *request, request->name(), /*is_load=*/false, response);
}

grpc::ServerUnaryReactor* ModelService::GetPlans(grpc::CallbackServerContext* call,
                                                 const v1::GetPlansRequest* request,
                                                 v1::GetPlansResponse* response) {
  return ServeUnary(context_, context_.slow, call, request,
                    [this, request, response](const std::string& tenant) {
                      return FindPlans(request->request(), AskerFor(tenant, kPlansWait), response);
                    });
}

absl::Status ModelService::FindPlans(const v1::GenerateRequest& request, const Asker& asker,
                                     v1::GetPlansResponse* response) const {
  const absl::StatusOr<const CatalogEntry*> entry = FindModel(context_, request);
  if (!entry.ok()) return entry.status();
  v1::GenerateRequest asked = request;
  if (!asked.has_prompt() && (*entry)->description.ok() &&
      engine::Denoises(
          engine::TaskOf(*(*entry)->description, convert::ToEngine(request).request))) {
    const auto most = static_cast<size_t>(context_.config.limits.max_prompt_bytes);
    asked.set_prompt(std::string(std::min(convert::kUnknownPromptBytes, most), 'x'));
  }
  // Only sizes, kinds and frame indices of conditions count.
  for (v1::Condition& condition : *asked.mutable_conditions()) {
    if (condition.source_case() != v1::Condition::kAssetId) condition.set_asset_id("-");
  }
  const absl::StatusOr<EffectiveRequest> effective = ResolveJob(context_, asker.tenant, asked);
  if (!effective.ok()) return effective.status();
  const auto estimates =
      Estimate(*effective->entry, effective->request,
               Targets(context_.config.workers, context_.link.Memories()), asker);
  if (!estimates.ok()) return estimates.status();
  *response->mutable_request() = asked;
  convert::FromEngine(effective->request, response->mutable_request());
  response->mutable_request()->set_model(effective->entry->config.name);
  if (!request.has_prompt()) response->mutable_request()->clear_prompt();
  for (v1::Condition& condition : *response->mutable_request()->mutable_conditions()) {
    condition.clear_source();
  }
  response->mutable_memory()->Assign(estimates->begin(), estimates->end());
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* ModelService::Command(grpc::CallbackServerContext* call,
                                                const google::protobuf::Message& request,
                                                const std::string& name, bool is_load,
                                                v1::Model* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const absl::StatusOr<Caller> caller = Admit(context_, *call, config::Role::kOperate);
  absl::Status refused = caller.status();
  if (refused.ok()) refused = CheckEnvelope(request);
  const absl::StatusOr<const CatalogEntry*> entry = Find(name);
  if (refused.ok()) refused = entry.status();
  if (refused.ok() && is_load && !(*entry)->description.ok()) {
    refused = WithErrorInfo(
        absl::FailedPreconditionError(absl::StrCat(
            "model '", name, "' cannot run: ", (*entry)->description.status().message())),
        "MODEL_BROKEN");
  }
  std::shared_ptr<void> place;
  if (refused.ok()) {
    place = context_.commands.TryTake(caller->line);
    if (place == nullptr) refused = ServerBusy("orders to workers are under way");
  }
  if (!refused.ok()) {
    reactor->Finish(ToGrpc(refused));
    return reactor;
  }
  auto done = [this, reactor, response, entry = *entry, place](const absl::Status& status) {
    // On the link's thread, which must not wait for a worker: what is known already.
    if (status.ok()) *response = View(*entry, Plans::kListed, AskerFor("", -kListWait));
    reactor->Finish(ToGrpc(status));
  };
  if (is_load) {
    context_.link.LoadModel(name, std::move(done));
  } else {
    context_.link.UnloadModel(name, std::move(done));
  }
  return reactor;
}

}  // namespace kino::frontend
