// `kino plan`: what a request would need, before it is submitted.
#include <iostream>

#include "server/cli/client.h"
#include "server/cli/commands.h"
#include "server/cli/print.h"
#include "server/cli/request_flags.h"
#include "server/plan/plan_table.h"

namespace kino::cli {

ExitCode PlanCommand(const std::vector<std::string>& arguments) {
  CommonFlags common;
  RequestFlags request_flags;
  CLI::App app(
      "Shows what a request would need on each device, plan by plan, fastest first; nothing is "
      "submitted. A star marks what the job would run by.",
      "kino plan");
  common.Register(app, "Exit code 4 when the job fits on no device.");
  request_flags.Register(app, RequestFlags::Positional::kModel);
  RequestInput input;
  if (auto code = request_flags.Parse(app, common, arguments, &input)) return *code;
  Client client(common.server);
  v1::GetPlansRequest request;
  *request.mutable_request() = input.request;
  v1::GetPlansResponse response;
  auto context = client.UnaryContext();
  const absl::Status status = ToStatus(client.models().GetPlans(context.get(), request, &response));
  if (!status.ok()) return ReportError(status, common.errors());
  if (common.is_json) {
    PrintJson(response);
  } else {
    for (const v1::MemoryEstimate& memory : response.memory()) {
      std::cout << plan::PlanTable(memory);
    }
  }
  for (const v1::MemoryEstimate& memory : response.memory()) {
    if (memory.refusal().empty()) return kOk;
  }
  return response.memory_size() == 0 ? kOk : kRefused;
}

}  // namespace kino::cli
