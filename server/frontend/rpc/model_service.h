// kino.v1.ModelService: the configured models, and loading and unloading them on workers.
// Thread-safe.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>
#include <vector>

#include "kino/v1/models.grpc.pb.h"
#include "server/frontend/rpc/context.h"
#include "server/frontend/rpc/placement.h"

namespace kino::frontend {

class ModelService final : public v1::ModelService::CallbackService {
 public:
  // `context` must outlive every RPC.
  explicit ModelService(const Context& context) : context_(context) {}

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* call,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* call,
                                     const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* call,
                                      const v1::LoadModelRequest* request,
                                      v1::Model* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* call,
                                        const v1::UnloadModelRequest* request,
                                        v1::Model* response) override;
  grpc::ServerUnaryReactor* GetPlans(grpc::CallbackServerContext* call,
                                     const v1::GetPlansRequest* request,
                                     v1::GetPlansResponse* response) override;

 private:
  enum class Plans { kLeftOut, kListed };
  // With the workers of the moment.
  v1::Model View(const CatalogEntry& entry, Plans plans, const Asker& asker) const;
  Asker AskerFor(const std::string& tenant, absl::Duration wait) const;
  absl::Status FindPlans(const v1::GenerateRequest& request, const Asker& asker,
                         v1::GetPlansResponse* response) const;
  absl::StatusOr<const CatalogEntry*> Find(const std::string& name) const;
  grpc::ServerUnaryReactor* Command(grpc::CallbackServerContext* call,
                                    const google::protobuf::Message& request,
                                    const std::string& name, bool is_load, v1::Model* response);

  const Context& context_;
};

}  // namespace kino::frontend
