// The configured models and what their checkpoints can do, read once at start. A model whose files
// are broken stays in the list with its problem, so that its jobs are refused with the reason.
// Immutable after construction; thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/describe/describe.h"
#include "kino/v1/models.pb.h"
#include "server/config/config.h"

namespace kino::frontend {

struct CatalogEntry {
  config::ModelConfig config;
  absl::StatusOr<engine::ModelDescription> description;
};

class Catalog {
 public:
  // Reads each model's configs and weight headers.
  explicit Catalog(const std::vector<config::ModelConfig>& models);

  // Null when no such model is configured.
  const CatalogEntry* Find(const std::string& name) const;
  const std::vector<CatalogEntry>& entries() const { return entries_; }
  // "demo, ltx-2b"
  std::string Names() const;

 private:
  std::vector<CatalogEntry> entries_;
};

// All that does not depend on the workers of the moment.
v1::Model ToProto(const CatalogEntry& entry);

}  // namespace kino::frontend
