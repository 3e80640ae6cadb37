#include "server/frontend/acceptor/acceptor.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace kino::frontend {
namespace {

// Of an acceptor that is short of descriptors, before it tries again.
constexpr absl::Duration kShortagePause = absl::Milliseconds(50);
// A flood is told of now and then.
constexpr int64_t kRefusalsTold = 1000;

// NOT_FOUND: this machine has no such address, or speaks no such protocol.
absl::Status SystemError(const std::string& what) {
  if (errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT)
    return absl::NotFoundError(absl::StrCat(what, ": ", std::strerror(errno)));
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// The other end: its IP address, and the whole as gRPC writes it. Empty: it has none, or is gone.
struct Peer {
  std::string address;
  std::string name;
};

Peer PeerOf(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return {};
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (peer.ss_family == AF_INET) {
    const auto* ip = reinterpret_cast<const sockaddr_in*>(&peer);
    inet_ntop(AF_INET, &ip->sin_addr, text.data(), text.size());
    return {text.data(), absl::StrCat("ipv4:", text.data(), ":", ntohs(ip->sin_port))};
  }
  if (peer.ss_family != AF_INET6) return {};
  const auto* ip = reinterpret_cast<const sockaddr_in6*>(&peer);
  inet_ntop(AF_INET6, &ip->sin6_addr, text.data(), text.size());
  absl::string_view address = text.data();
  // One caller, whichever of its two forms it comes by.
  if (absl::ConsumePrefix(&address, "::ffff:"))
    return {std::string(address), absl::StrCat("ipv4:", address, ":", ntohs(ip->sin6_port))};
  return {text.data(), absl::StrCat("ipv6:%5B", address, "%5D:", ntohs(ip->sin6_port))};
}

}  // namespace

class Acceptor::Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

struct Acceptor::Connection {
  Descriptor copy;  // tells when the connection ends: gRPC shuts it down before it closes its own
  Peer peer;
  bool is_closed = false;  // by Close
};

Acceptor::Acceptor(const AcceptorLimits& limits)
    : limits_(limits),
      epoll_(std::make_unique<Descriptor>(epoll_create1(EPOLL_CLOEXEC))),
      stop_(std::make_unique<Descriptor>(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))) {}

Acceptor::~Acceptor() { Stop(); }

absl::Status Acceptor::Watch(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_->get(), EPOLL_CTL_ADD, fd, &event) == 0) return absl::OkStatus();
  return SystemError("cannot be watched");
}

absl::Status Acceptor::Listen(int family, int type, int protocol, const void* address,
                              uint32_t size) {
  auto listener =
      std::make_unique<Descriptor>(socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
  if (listener->get() < 0) return SystemError("no socket");
  const int on = 1;
  if (family != AF_UNIX) setsockopt(listener->get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  // Whether an IPv6 socket takes IPv4 callers is said by its address alone, not by the system's
  // settings: [::] is everybody, and every other address is itself.
  if (family == AF_INET6) {
    const auto* ip = static_cast<const sockaddr_in6*>(address);
    const int only = IN6_IS_ADDR_UNSPECIFIED(&ip->sin6_addr) ? 0 : 1;
    setsockopt(listener->get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
  }
  if (bind(listener->get(), static_cast<const sockaddr*>(address), size) != 0)
    return SystemError("cannot be bound");
  if (listen(listener->get(), SOMAXCONN) != 0) return SystemError("cannot be listened on");
  const absl::Status watched = Watch(listener->get(), EPOLLIN);
  if (!watched.ok()) return watched;
  listeners_.push_back(std::move(listener));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::ListenTcp(const std::string& address,
                                                              const AcceptorLimits& limits) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos)
    return absl::InvalidArgumentError(absl::StrCat("'", address, "': expected host:port"));
  std::string host = address.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* first = nullptr;
  const int code = getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &first);
  if (code != 0)
    return absl::InvalidArgumentError(absl::StrCat("'", address, "': ", gai_strerror(code)));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(first, freeaddrinfo);
  std::unique_ptr<Acceptor> acceptor(new Acceptor(limits));
  for (const addrinfo* one = first; one != nullptr; one = one->ai_next) {
    // The port that the first address was given is that of the others.
    if (one->ai_family == AF_INET && acceptor->port_ != 0)
      reinterpret_cast<sockaddr_in*>(one->ai_addr)->sin_port = htons(acceptor->port_);
    if (one->ai_family == AF_INET6 && acceptor->port_ != 0)
      reinterpret_cast<sockaddr_in6*>(one->ai_addr)->sin6_port = htons(acceptor->port_);
    const absl::Status listening = acceptor->Listen(
        one->ai_family, one->ai_socktype, one->ai_protocol, one->ai_addr, one->ai_addrlen);
    if (!listening.ok()) {
      // A name may have an address of a kind that this machine does not speak.
      if (absl::IsNotFound(listening) && (one->ai_next != nullptr || !acceptor->listeners_.empty()))
        continue;
      return absl::UnavailableError(absl::StrCat("'", address, "' ", listening.message()));
    }
    sockaddr_storage bound{};
    socklen_t size = sizeof(bound);
    getsockname(acceptor->listeners_.back()->get(), reinterpret_cast<sockaddr*>(&bound), &size);
    acceptor->port_ =
        ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                          : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  }
  return acceptor;
}

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::ListenUnix(const std::string& path,
                                                               const AcceptorLimits& limits) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("the socket's path '", path, "' has ",
                                                   path.size(), " bytes, expected 1 to ",
                                                   sizeof(address.sun_path) - 1));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  std::unique_ptr<Acceptor> acceptor(new Acceptor(limits));
  acceptor->is_local_ = true;
  unlink(path.c_str());
  absl::Status listening = acceptor->Listen(AF_UNIX, SOCK_STREAM, 0, &address, sizeof(address));
  // Nobody connects in between: its folder is this user's alone, and who connects is looked at.
  if (listening.ok() && chmod(path.c_str(), 0600) != 0) listening = SystemError("cannot be locked");
  if (!listening.ok())
    return absl::UnavailableError(absl::StrCat("'", path, "' ", listening.message()));
  return acceptor;
}

void Acceptor::Start(TakeConnection take) {
  take_ = std::move(take);
  if (Watch(stop_->get(), EPOLLIN).ok()) thread_ = std::thread([this] { Loop(); });
  if (thread_.joinable()) pthread_setname_np(thread_.native_handle(), "accept");
}

void Acceptor::Stop() {
  const uint64_t one = 1;
  if (thread_.joinable() && write(stop_->get(), &one, sizeof(one)) == sizeof(one)) thread_.join();
  listeners_.clear();
  absl::MutexLock lock(&mutex_);
  open_.clear();
}

void Acceptor::Loop() {
  std::array<epoll_event, 64> events{};
  while (true) {
    const int count = epoll_wait(epoll_->get(), events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == stop_->get()) return;
      if (!Forget(fd)) Accept(fd);
    }
  }
}

bool Acceptor::Forget(int fd) {
  absl::MutexLock lock(&mutex_);
  const auto found = open_.find(fd);
  if (found == open_.end()) return false;
  // The description lives on in gRPC's descriptor, and epoll would go on telling of it.
  epoll_ctl(epoll_->get(), EPOLL_CTL_DEL, fd, nullptr);
  const auto address = open_of_.find(found->second->peer.address);
  if (--address->second == 0) open_of_.erase(address);
  open_.erase(found);
  return true;
}

int Acceptor::open() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(open_.size());
}

bool Acceptor::Close(const std::string& peer) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [fd, connection] : open_) {
    if (connection->peer.name != peer || connection->is_closed) continue;
    connection->is_closed = true;
    // Resets it at once, whatever waits to be read: after shutdown() the other end could go on
    // sending until the server had read all of it.
    const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
    return connect(fd, &nobody, sizeof(nobody)) == 0;
  }
  return false;
}

std::string Acceptor::Refusal(int fd, const std::string& address) const {
  if (is_local_) {
    ucred peer{};
    socklen_t size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
      return "its user cannot be told";
    if (peer.uid != geteuid() && peer.uid != 0)
      return absl::StrCat("process ", peer.pid, " is user ", peer.uid, "'s, expected ", geteuid());
  }
  if (open_.size() >= static_cast<size_t>(limits_.connections))
    return absl::StrCat(open_.size(), " connections are open");
  const auto found = open_of_.find(address);
  if (!is_local_ && found != open_of_.end() && found->second >= limits_.connections_per_address)
    return absl::StrCat(found->second, " connections of ", address, " are open");
  return "";
}

void Acceptor::Accept(int listener) {
  Descriptor fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.get() < 0) {
    // The connection stays in the system's queue, and epoll tells of it again.
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
      absl::SleepFor(kShortagePause);
    return;
  }
  Peer peer = PeerOf(fd.get());
  // It has gone already.
  if (!is_local_ && peer.name.empty()) return;
  {
    absl::MutexLock lock(&mutex_);
    if (const std::string refusal = Refusal(fd.get(), peer.address); !refusal.empty()) {
      if (refused_++ % kRefusalsTold == 0)
        spdlog::warn("a connection was refused, the {}. so far: {}", refused_, refusal);
      return;
    }
    const int on = 1;
    if (!is_local_) setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    const int copy = fcntl(fd.get(), F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return;
    auto connection = std::unique_ptr<Connection>(new Connection{Descriptor(copy), peer});
    // Nothing but the end: an error and a hang-up are told unasked.
    if (!Watch(copy, 0).ok()) return;
    ++open_of_[peer.address];
    open_.emplace(copy, std::move(connection));
  }
  take_(fd.Release());
}

}  // namespace kino::frontend
