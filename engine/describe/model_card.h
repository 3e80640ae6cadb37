// What a model's card says of its licence: the YAML at the head of README.md in its folder, as the
// Hugging Face hub has it. No torch. Free function.
#pragma once

#include <string>
#include <string_view>

namespace kino::engine {

// Empty: the card does not say. Printable ASCII, whatever the file holds.
struct ModelCard {
  std::string license;       // "apache-2.0", or the name of a licence of the model's own
  std::string license_link;  // where that is to be read
};

// Of the folder's README.md. A folder without one, and a card that says nothing of it, are no
// error: a model runs without.
ModelCard ReadModelCard(const std::string& folder);
// Of the beginning of such a file.
ModelCard ParseModelCard(std::string_view text);

}  // namespace kino::engine
