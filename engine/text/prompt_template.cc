#include "engine/text/prompt_template.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

constexpr char kImageToken[] = "<image>", kEndOfHeader[] = "<|end_header_id|>";

// Where the image stands, and the tokens of "<|start_header_id|>assistant<|end_header_id|>" with
// the one in front of them, which are not the prompt's.
constexpr int64_t kImagePosition = 5, kAssistantTokens = 4;

absl::StatusOr<int64_t> Find(const BpeTokenizer& tokenizer, std::string_view token) {
  const std::optional<int64_t> id = tokenizer.FindToken(token);
  if (id) return *id;
  return absl::InvalidArgumentError(absl::StrCat("the tokenizer has no token '", std::string(token),
                                                 "', which the prompt's template needs"));
}

// Past the header of the assistant's turn, which the template ends with. Of a prompt that is too
// long the end is cut off; what is taken for the header then is what diffusers takes.
int64_t EndOfAssistantHeader(const std::vector<int64_t>& padded, int64_t end_of_header) {
  const int64_t length = static_cast<int64_t>(padded.size());
  if (absl::c_count(padded, end_of_header) == 2) return length;
  const auto last = std::find(padded.rbegin(), padded.rend(), end_of_header);
  return padded.rend() - last;
}

}  // namespace

const PromptTemplate kTextToVideoTemplate = {
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following "
    "aspects: 1. The main content and theme of the video.2. The color, shape, size, texture, "
    "quantity, text, and spatial relationships of the objects.3. Actions, events, behaviors "
    "temporal relationships, physical movement changes of the objects.4. background environment, "
    "light, style and atmosphere.5. camera angles, movements, and transitions used in the video:"
    "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    "<|eot_id|>", 95, /*has_image=*/false};

const PromptTemplate kImageToVideoTemplate = {
    "<|start_header_id|>system<|end_header_id|>\n\n<image>\nDescribe the video by detailing the "
    "following aspects according to the reference image: 1. The main content and theme of the "
    "video.2. The color, shape, size, texture, quantity, text, and spatial relationships of the "
    "objects.3. Actions, events, behaviors temporal relationships, physical movement changes of "
    "the objects.4. background environment, light, style and atmosphere.5. camera angles, "
    "movements, and transitions used in the video:<|eot_id|>\n\n<|start_header_id|>user"
    "<|end_header_id|>\n\n",
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", 103, /*has_image=*/true};

absl::StatusOr<TemplatedPrompt> TokenizeInTemplate(const BpeTokenizer* tokenizer,
                                                   const PromptTemplate& around,
                                                   const std::string& prompt, int max_length) {
  const int length = max_length + around.crop_start;
  TemplatedPrompt result;
  int64_t tokens = length, after_header = length;
  if (tokenizer == nullptr) {
    result.padded.assign(static_cast<size_t>(length), 0);
  } else {
    if (around.has_image && absl::StrContains(prompt, kImageToken)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the prompt holds '", kImageToken,
          "', which stands for the image's place in the model's own text; expected it without"));
    }
    KINO_ASSIGN_OR_RETURN(
        Tokens encoded,
        tokenizer->Encode(std::string(around.begin) + prompt + std::string(around.end), length));
    tokens = absl::c_count(encoded.attention_mask, 1);
    result.padded = std::move(encoded.ids);
  }
  result.encoded.assign(result.padded.begin(), result.padded.begin() + tokens);
  if (!around.has_image) {
    result.text = {{std::min<int64_t>(around.crop_start, tokens), tokens}};
    return result;
  }
  int64_t image_id = 0;
  if (tokenizer != nullptr) {
    KINO_ASSIGN_OR_RETURN(image_id, Find(*tokenizer, kImageToken));
    KINO_ASSIGN_OR_RETURN(const int64_t end_of_header, Find(*tokenizer, kEndOfHeader));
    if (result.padded[kImagePosition] != image_id) {
      return absl::InvalidArgumentError(absl::StrCat("the tokenizer puts '", kImageToken,
                                                     "' elsewhere than at token ", kImagePosition,
                                                     " of the prompt's template"));
    }
    after_header = EndOfAssistantHeader(result.padded, end_of_header);
  }
  for (std::vector<int64_t>* ids : {&result.padded, &result.encoded})
    ids->insert(ids->begin() + kImagePosition, kImageTokens - 1, image_id);
  result.image = {kImagePosition, kImagePosition + kImageTokens};
  constexpr int64_t kShift = kImageTokens - 1;
  for (const TokenRange& range :
       {TokenRange{around.crop_start, std::min(after_header - kAssistantTokens, tokens)},
        TokenRange{after_header, tokens}}) {
    if (range.begin < range.end) result.text.push_back({range.begin + kShift, range.end + kShift});
  }
  return result;
}

}  // namespace kino::engine
