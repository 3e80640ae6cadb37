// kino.v1.VideoService: thin handlers over Context. Thread-safe; nothing blocks gRPC's threads.
#pragma once

#include <grpcpp/grpcpp.h>

#include "kino/v1/video.grpc.pb.h"
#include "server/frontend/rpc/context.h"

namespace kino::frontend {

class VideoService final : public v1::VideoService::CallbackService {
 public:
  // `context` must outlive every RPC.
  explicit VideoService(const Context& context) : context_(context) {}

  grpc::ServerWriteReactor<v1::JobEvent>* Generate(grpc::CallbackServerContext* call,
                                                   const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* SubmitJob(grpc::CallbackServerContext* call,
                                      const v1::SubmitJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* call,
                                   const v1::GetJobRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* call,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* call,
                                      const v1::CancelJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* RequeueJob(grpc::CallbackServerContext* call,
                                       const v1::RequeueJobRequest* request,
                                       v1::Job* response) override;
  grpc::ServerUnaryReactor* CancelJobs(grpc::CallbackServerContext* call,
                                       const v1::CancelJobsRequest* request,
                                       v1::CancelJobsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* call,
                                      const v1::DeleteJobRequest* request,
                                      v1::DeleteJobResponse* response) override;
  grpc::ServerWriteReactor<v1::JobEvent>* WatchJob(grpc::CallbackServerContext* call,
                                                   const v1::WatchJobRequest* request) override;
  grpc::ServerWriteReactor<v1::DownloadVideoResponse>* DownloadVideo(
      grpc::CallbackServerContext* call, const v1::DownloadVideoRequest* request) override;
  grpc::ServerReadReactor<v1::UploadAssetRequest>* UploadAsset(grpc::CallbackServerContext* call,
                                                               v1::Asset* response) override;

 private:
  const Context& context_;
};

}  // namespace kino::frontend
