// A model's folder with configs and next to no weights: enough to describe it, not to run it.
#pragma once

#include <string>

#include "nlohmann/json.hpp"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::testing {

// What differs from the defaults of diffusers' classes.
struct BareModel {
  std::string pipeline_class;
  nlohmann::json transformer = nlohmann::json::object();
  nlohmann::json vae = nlohmann::json::object();
  nlohmann::json scheduler = nlohmann::json::object();
};

// variant: of its weight files; empty: the plain ones.
inline void WriteBareModel(const TempDir& folder, const BareModel& model,
                           const std::string& variant = "") {
  const nlohmann::json index = {{"_class_name", model.pipeline_class},
                                {"text_encoder", {"transformers", "T5EncoderModel"}},
                                {"transformer", {"diffusers", "Transformer3DModel"}},
                                {"vae", {"diffusers", "AutoencoderKL"}}};
  folder.Write("model_index.json", index.dump());
  folder.Write("scheduler/scheduler_config.json", model.scheduler.dump());
  const nlohmann::json t5 = {{"feed_forward_proj", "gated-gelu"}};
  for (const auto& [name, config] :
       {std::pair{"text_encoder", t5}, {"transformer", model.transformer}, {"vae", model.vae}}) {
    folder.Write(std::string(name) + "/config.json", config.dump());
    folder.Write(name + ("/model" + (variant.empty() ? "" : "." + variant) + ".safetensors"),
                 SafetensorsOf({{"weight", {1}, {1}}}));
  }
}

}  // namespace kino::testing
