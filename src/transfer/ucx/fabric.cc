#include "transfer/ucx/fabric.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdlib>

#include "base/log.h"
#include "transfer/ucx/ucx_fabric.h"

namespace baton::transfer::ucx {

bool rdma_device_present() {
  auto* dir = ::opendir("/sys/class/infiniband");
  if (dir == nullptr) return false;
  bool found = false;
  while (auto* entry = ::readdir(dir)) found = found || entry->d_name[0] != '.';
  ::closedir(dir);
  return found;
}

#if !BATON_HAS_UCX

bool built_in() { return false; }
std::string version() { return {}; }
Result<std::unique_ptr<Fabric>> Fabric::open(Loop&, std::span<std::byte>, const std::string&) {
  return fail(Code::kUnimplemented, "this program was built without UCX");
}

#else

bool built_in() { return true; }

std::string version() {
  if (ucp_get_version == nullptr) return {};
  unsigned major = 0, minor = 0, release = 0;
  ucp_get_version(&major, &minor, &release);
  return cat(major, ".", minor);
}

// Defaults of ours, which the environment may overrule. UCX's own way to set an option reaches no device's options in 1.13.
static void set_default(const char* name, const std::string& value) { ::setenv(name, value.c_str(), 0); }

UcxFabric::~UcxFabric() {
  *self_ = nullptr;
  if (staging_) staging_->close();
  if (thread_.joinable()) {
    stop_ = true;
    wake();
    thread_.join();
  }
  if (pool_ != nullptr) ucp_mem_unmap(context_, pool_);
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
}

Result<> UcxFabric::open(std::span<std::byte> pool, const std::string& interface) {
  BATON_OK(load());
  BATON_OK(open_context(pool, interface));
  BATON_OK(open_worker());
  event_ = Fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!event_) return fail(Code::kResourceExhausted, "eventfd");
  staging_ = std::make_shared<Staging>(kStagingBytes, [this] { wake(); });
  thread_ = std::thread([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(), "kv-ucx");
  return {};
}

Result<> UcxFabric::open_context(std::span<std::byte> pool, const std::string& interface) {
  static std::mutex environment;  // nodes of one process, as in tests, open at the same time
  std::scoped_lock lock(environment);
  set_default("UCX_TCP_TX_SEG_SIZE", "256k");  // 8k and 64k are UCX's: 4.6 against 5.4 GB/s on loopback (facts 4.4)
  set_default("UCX_TCP_RX_SEG_SIZE", "256k");
  if (!interface.empty()) set_default("UCX_NET_DEVICES", interface);
  ucp_config_t* config = nullptr;
  if (auto s = ucp_config_read(nullptr, nullptr, &config); s != UCS_OK) return ucx_error("configuration", s);
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_RMA | UCP_FEATURE_WAKEUP;
  params.name = "baton-kv";
  auto status = ucp_init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &context_);
  ucp_config_release(config);
  if (status != UCS_OK) return ucx_error("context", status);

  ucp_mem_map_params_t map{};
  map.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  map.address = pool.data();
  map.length = pool.size();
  status = ucp_mem_map(context_, &map, &pool_);
  if (status != UCS_OK) return ucx_error("registering the pool", status);
  void* key = nullptr;
  size_t key_bytes = 0;
  if (ucp_rkey_pack(context_, pool_, &key, &key_bytes) == UCS_OK) {
    local_.pool_key.assign(static_cast<const char*>(key), key_bytes);
    ucp_rkey_buffer_release(key);
  }
  local_.pool_base = reinterpret_cast<uintptr_t>(pool.data());
  return {};
}

Result<> UcxFabric::open_worker() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;  // opened here, then its thread's alone
  if (auto s = ucp_worker_create(context_, &params, &worker_); s != UCS_OK) return ucx_error("worker", s);
  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  if (auto s = ucp_worker_get_address(worker_, &address, &bytes); s != UCS_OK) return ucx_error("address", s);
  local_.address.assign(reinterpret_cast<const char*>(address), bytes);
  ucp_worker_release_address(worker_, address);
  if (local_.address.size() > kFabricBlobMax || local_.pool_key.size() > kFabricBlobMax)
    return fail(Code::kOutOfRange, "ucx address of ", local_.address.size(), " bytes: name fewer devices in UCX_NET_DEVICES");
  if (auto s = ucp_worker_get_efd(worker_, &worker_fd_); s != UCS_OK) return ucx_error("event descriptor", s);
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS | UCP_AM_HANDLER_PARAM_FIELD_CB |
                       UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kMessageId;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.arg = this;
  handler.cb = [](void* self, const void* header, size_t header_length, void* data, size_t length,
                  const ucp_am_recv_param_t* param) {
    return static_cast<UcxFabric*>(self)->on_message(header, header_length, data, length, param);
  };
  if (auto s = ucp_worker_set_am_recv_handler(worker_, &handler); s != UCS_OK) return ucx_error("message handler", s);
  return {};
}

void UcxFabric::expect(const Nonce& key, size_t bytes_max, Arrived arrived) {
  arrived_[key] = std::move(arrived);
  std::scoped_lock lock(mutex_);
  expected_[key] = bytes_max;
}

void UcxFabric::forget(const Nonce& key) {
  arrived_.erase(key);
  std::scoped_lock lock(mutex_);
  expected_.erase(key);
}

size_t UcxFabric::bytes_max_of(const Nonce& key) {
  std::scoped_lock lock(mutex_);
  auto it = expected_.find(key);
  return it == expected_.end() ? 0 : it->second;
}

uint64_t UcxFabric::dial(std::string address, std::string pool_key, Lost lost) {
  auto id = next_endpoint_++;
  lost_[id] = std::move(lost);
  command([this, id, address = std::move(address), pool_key = std::move(pool_key)] {
    auto& peer = peers_[id];
    peer.address = address;
    peer.packed_key = pool_key;
  });
  return id;
}

void UcxFabric::hang_up(uint64_t endpoint) {
  if (lost_.erase(endpoint) > 0) command([this, endpoint] { do_hang_up(endpoint); });
}

void UcxFabric::send(uint64_t endpoint, const Nonce& key, const ChunkHead& head, std::vector<iovec> parts) {
  auto op = std::make_shared<std::unique_ptr<Operation>>(std::make_unique<Operation>());
  (*op)->fabric = this;
  (*op)->header.assign(reinterpret_cast<const char*>(key.data()), key.size());
  (*op)->header += encode_body(head);
  command([this, endpoint, op, parts = std::move(parts)] { do_send(endpoint, std::move(*op), parts); });
}

void UcxFabric::read(uint64_t endpoint, const Nonce& key, const ChunkHead& head, std::vector<RemotePiece> pieces) {
  auto op = std::make_shared<std::unique_ptr<Operation>>(std::make_unique<Operation>());
  (*op)->fabric = this;
  (*op)->key = key;
  (*op)->head = head;
  command([this, endpoint, op, pieces = std::move(pieces)] { do_read(endpoint, std::move(*op), pieces); });
}

void UcxFabric::command(Command fn) {
  {
    std::scoped_lock lock(mutex_);
    commands_.push_back(std::move(fn));
    if (commands_.size() > 1) return;  // awake already
  }
  wake();
}

void UcxFabric::wake() {
  uint64_t one = 1;
  [[maybe_unused]] auto n = ::write(event_.get(), &one, sizeof one);
}

Result<std::unique_ptr<Fabric>> Fabric::open(Loop& loop, std::span<std::byte> pool, const std::string& interface) {
  auto fabric = std::make_unique<UcxFabric>(loop);
  BATON_OK(fabric->open(pool, interface));
  return fabric;
}

#endif

}  // namespace baton::transfer::ucx
