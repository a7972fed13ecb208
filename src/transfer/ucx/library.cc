#include "transfer/ucx/library.h"

#if BATON_HAS_UCX
#include <dlfcn.h>

#include <cstdlib>
#include <mutex>

namespace baton::transfer::ucx {

constexpr const char* kLibrary = "libucp.so.0";  // the ABI of the headers that we are compiled with

// What its constructors read. No signal handlers; and no hooks under mmap, munmap and their like, whose only use is a cache of
// registrations that follows memory which comes and goes: our pool stays where it is. Who names a hook mode wants hooks.
static void set_defaults() {
  ::setenv("UCX_ERROR_SIGNALS", "", 0);
  if (::getenv("UCX_MEM_MMAP_HOOK_MODE") == nullptr) ::setenv("UCX_MEM_EVENTS", "n", 0);
}

Result<> load() {
  static std::mutex mutex;  // nodes of one process, as in tests, open at the same time
  static bool loaded = false;
  std::scoped_lock lock(mutex);
  if (loaded) return {};
  set_defaults();
  void* library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return fail(Code::kUnavailable, "UCX cannot be loaded: ", ::dlerror());
  const char* missing = nullptr;
#define BATON_UCX_LOOK_UP(name)                                     \
  name = reinterpret_cast<decltype(name)>(::dlsym(library, #name)); \
  if (name == nullptr) missing = #name;
  BATON_UCX_FUNCTIONS(BATON_UCX_LOOK_UP)
#undef BATON_UCX_LOOK_UP
  if (missing != nullptr) return fail(Code::kUnavailable, "UCX cannot be used: ", kLibrary, " has no ", missing);
  loaded = true;
  return {};
}

}  // namespace baton::transfer::ucx
#endif
