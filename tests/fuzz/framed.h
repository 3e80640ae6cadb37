// Several protobuf messages as one fuzzer's input.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kino::fuzz {

inline constexpr size_t kMaxFramedMessages = 64;

// Messages one after another, each as a length of two bytes and the bytes. Nothing: one of them is
// none.
template <typename Message>
std::optional<std::vector<Message>> Messages(std::string_view bytes) {
  std::vector<Message> messages;
  while (bytes.size() >= 2 && messages.size() < kMaxFramedMessages) {
    const size_t size =
        static_cast<unsigned char>(bytes[0]) * size_t{256} + static_cast<unsigned char>(bytes[1]);
    const std::string_view own = bytes.substr(2, size);
    if (!messages.emplace_back().ParseFromArray(own.data(), static_cast<int>(own.size())))
      return std::nullopt;
    bytes.remove_prefix(2 + own.size());
  }
  return messages;
}

template <typename Message>
std::string Framed(const std::vector<Message>& messages) {
  std::string bytes;
  for (const Message& message : messages) {
    const size_t size = message.ByteSizeLong();
    bytes.push_back(static_cast<char>(size / 256));
    bytes.push_back(static_cast<char>(size % 256));
    bytes += message.SerializeAsString();
  }
  return bytes;
}

}  // namespace kino::fuzz
