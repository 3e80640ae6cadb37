// Several strings or protobuf messages as one fuzzer's input: one after another, each as a length
// of two bytes and the bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kino::fuzz {

inline constexpr size_t kMaxFramedMessages = 64;

inline std::string Frame(const std::string& bytes) {
  std::string frame = {static_cast<char>(bytes.size() / 256),
                       static_cast<char>(bytes.size() % 256)};
  return frame += bytes;
}

// Takes the first one off `bytes`; one that is cut short is what there is of it.
inline std::string_view TakeFrame(std::string_view& bytes) {
  if (bytes.size() < 2) return {};
  const size_t size =
      static_cast<unsigned char>(bytes[0]) * size_t{256} + static_cast<unsigned char>(bytes[1]);
  const std::string_view own = bytes.substr(2, size);
  bytes.remove_prefix(2 + own.size());
  return own;
}

// Nothing: one of them is none.
template <typename Message>
std::optional<std::vector<Message>> Messages(std::string_view bytes) {
  std::vector<Message> messages;
  while (bytes.size() >= 2 && messages.size() < kMaxFramedMessages) {
    const std::string_view own = TakeFrame(bytes);
    if (!messages.emplace_back().ParseFromArray(own.data(), static_cast<int>(own.size())))
      return std::nullopt;
  }
  return messages;
}

template <typename Message>
std::string Framed(const std::vector<Message>& messages) {
  std::string bytes;
  for (const Message& message : messages) bytes += Frame(message.SerializeAsString());
  return bytes;
}

}  // namespace kino::fuzz
