#include "server/frontend/rpc/model_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/frontend/rpc/unary.h"

namespace kino::frontend {

ModelService::ModelService(const Context& context) : context_(context) {
  for (const config::WorkerConfig& worker : context.config.workers) {
    devices_.push_back(worker.device);
  }
}

v1::Model ModelService::View(const CatalogEntry& entry) const {
  v1::Model out = ToProto(entry, devices_);
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
  return WithErrorInfo(absl::NotFoundError(absl::StrCat("no model '", name.substr(0, 128),
                                                        "'; known: ", context_.catalog.Names())),
                       "MODEL_NOT_FOUND");
}

grpc::ServerUnaryReactor* ModelService::ListModels(grpc::CallbackServerContext* call,
                                                   const v1::ListModelsRequest* request,
                                                   v1::ListModelsResponse* response) {
  return ServeUnary(context_, context_.rpc, call, request, [this, response](const std::string&) {
    for (const CatalogEntry& entry : context_.catalog.entries()) {
      *response->add_models() = View(entry);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelService::GetModel(grpc::CallbackServerContext* call,
                                                 const v1::GetModelRequest* request,
                                                 v1::Model* response) {
  return ServeUnary(context_, context_.rpc, call, request,
                    [this, request, response](const std::string&) -> absl::Status {
                      const auto entry = Find(request->name());
                      if (!entry.ok()) return entry.status();
                      *response = View(**entry);
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

grpc::ServerUnaryReactor* ModelService::Command(grpc::CallbackServerContext* call,
                                                const google::protobuf::Message& request,
                                                const std::string& name, bool is_load,
                                                v1::Model* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  std::vector<engine::FieldViolation> violations;
  CheckKnown(request, "", violations);
  absl::Status refused = TenantOf(context_, *call).status();
  if (refused.ok()) refused = convert::InvalidRequest(violations);
  const absl::StatusOr<const CatalogEntry*> entry = Find(name);
  if (refused.ok()) refused = entry.status();
  if (refused.ok() && is_load && !(*entry)->description.ok()) {
    refused = WithErrorInfo(
        absl::FailedPreconditionError(absl::StrCat(
            "model '", name, "' cannot run: ", (*entry)->description.status().message())),
        "MODEL_BROKEN");
  }
  if (!refused.ok()) {
    reactor->Finish(ToGrpc(refused));
    return reactor;
  }
  auto done = [this, reactor, response, entry = *entry](const absl::Status& status) {
    if (status.ok()) *response = View(*entry);
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
