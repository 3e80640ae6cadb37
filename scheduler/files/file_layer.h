// The one door to the files that Kino writes: videos, assets, uploads, the job store's own file and
// its lock, the spools of workers. A test puts a disk behind it that is full, slow, broken, or
// loses its power.
//
// Every call gives 0 or an errno; callers put their own words around it, because these know no
// path that a client may see. Nothing is retried but EINTR. A FileLayer is thread-safe. A File is
// used by one thread at a time, except that any number may Read, and Punch what nobody else uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kino::scheduler {

enum class OpenMode {
  kRead,       // ENOENT where it is missing
  kWrite,      // for reading and writing; ENOENT where it is missing
  kCreate,     // the same, made where it is missing
  kCreateNew,  // the same; EEXIST where it is there
};

// An open file. Closed by the destructor.
class File {
 public:
  virtual ~File() = default;
  // All of `data` at byte `offset`. After an error a part of it may be there.
  virtual int Write(std::string_view data, int64_t offset) = 0;
  // `size` bytes from byte `offset` into `out`; `got` is less only where the file ends before.
  virtual int Read(char* out, size_t size, int64_t offset, size_t& got) const = 0;
  virtual int Truncate(int64_t size) = 0;
  // Gives the disk space of `size` bytes from `offset` back; they read as zeros from now on, and
  // the file is as long as before. EOPNOTSUPP where the file system cannot.
  virtual int Punch(int64_t offset, int64_t size) = 0;
  virtual int Size(int64_t& size) const = 0;
  // Makes the content durable, not the name (SyncFolder). The system tells of a failure once only,
  // and what was written may be gone then: do not retry.
  virtual int Sync() = 0;
  // An advisory lock on the whole file, for as long as this is open; it ends with the process too.
  // EWOULDBLOCK where another open file has it, be it this process's. Does not wait.
  virtual int TryLock() = 0;
};

class FileLayer {
 public:
  virtual ~FileLayer() = default;
  // New files have mode 0600. A symbolic link is refused (ELOOP).
  virtual int Open(const std::string& path, OpenMode mode, std::unique_ptr<File>& file) = 0;
  // Replaces `to`. Durable once the folder of each name is synced.
  virtual int Rename(const std::string& from, const std::string& to) = 0;
  virtual int Unlink(const std::string& path) = 0;
  // Mode 0700. EEXIST where it is there.
  virtual int MakeFolder(const std::string& path) = 0;
  // Makes durable which names the folder has.
  virtual int SyncFolder(const std::string& path) = 0;
  // The names in a folder without "." and "..", in any order.
  virtual int List(const std::string& path, std::vector<std::string>& names) = 0;
  // What an unprivileged writer may still fill, in bytes.
  virtual int FreeBytes(const std::string& path, int64_t& bytes) = 0;
};

// The system's files. Lives for ever.
FileLayer& RealFiles();

// An errno that is nobody's fault and may pass: the disk has no room, or what this process or user
// may take of it is used up (ENOSPC, EDQUOT, EFBIG);
bool IsOutOfSpace(int error);
// this process or machine has no descriptor or memory left (EMFILE, ENFILE, ENOMEM).
bool IsOutOfResources(int error);

}  // namespace kino::scheduler
