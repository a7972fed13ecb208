// The half of UcxFabric that runs on UCX's own thread.
#include "transfer/ucx/ucx_fabric.h"

#if BATON_HAS_UCX
#include <poll.h>
#include <unistd.h>

namespace baton::transfer::ucx {

constexpr int kProgressTurns = 64;  // before commands have their turn
constexpr int kSpinTurns = 200;     // fruitless looks at the devices before the thread sleeps, while something is under way

void UcxFabric::run() {
  int fruitless = 0;
  while (!stop_) {
    bool busy = run_commands();
    receive_waiting();
    if (gone_changed_) close_gone();
    for (int turn = 0; turn < kProgressTurns && ucp_worker_progress(worker_) != 0; ++turn) busy = true;
    std::erase_if(closing_, [](void* request) {
      if (ucp_request_check_status(request) == UCS_INPROGRESS) return false;
      ucp_request_free(request);
      return true;
    });
    if (busy || (operations_ > 0 && ++fruitless < kSpinTurns)) {
      if (busy) fruitless = 0;
      continue;
    }
    fruitless = 0;
    wait();
  }
  end_everything();
}

void UcxFabric::wait() {
  if (ucp_worker_arm(worker_) != UCS_OK) return;  // something happened meanwhile
  pollfd fds[] = {{worker_fd_, POLLIN, 0}, {event_.get(), POLLIN, 0}};
  ::poll(fds, 2, closing_.empty() ? -1 : 1);
  uint64_t n = 0;
  [[maybe_unused]] auto r = ::read(event_.get(), &n, sizeof n);  // does not block
}

bool UcxFabric::run_commands() {
  std::vector<Command> now;
  {
    std::scoped_lock lock(mutex_);
    now.swap(commands_);
  }
  for (auto& fn : now) fn();
  return !now.empty();
}

void UcxFabric::lose(uint64_t id, Error why) {
  loop_.post([self = self_, id, why = std::move(why)] {
    if (*self == nullptr) return;
    auto it = (*self)->lost_.find(id);
    if (it != (*self)->lost_.end()) Lost(it->second)(why);
  });
}

UcxFabric::Peer* UcxFabric::connected(uint64_t id) {
  auto it = peers_.find(id);
  if (it == peers_.end() || it->second.lost || it->second.gone) return nullptr;
  auto& peer = it->second;
  if (peer.ep != nullptr) return &peer;
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(peer.address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;  // without it nothing of a dead peer can ever be given back
  params.err_handler.arg = this;
  params.err_handler.cb = [](void* self, ucp_ep_h ep, ucs_status_t why) { static_cast<UcxFabric*>(self)->on_lost(ep, why); };
  auto status = ucp_ep_create(worker_, &params, &peer.ep);
  if (status == UCS_OK && !peer.packed_key.empty()) status = ucp_ep_rkey_unpack(peer.ep, peer.packed_key.data(), &peer.pool_key);
  if (status == UCS_OK) return &peer;
  peer.lost = true;
  lose(id, ucx_error("endpoint", status).error());
  return nullptr;
}

void UcxFabric::on_lost(ucp_ep_h ep, ucs_status_t why) {
  for (auto& [id, peer] : peers_) {
    if (peer.ep != ep || std::exchange(peer.lost, true)) continue;
    gone_changed_ = true;
    lose(id, {Code::kUnavailable, ucs_status_string(why)});
  }
}

// UCX 1.13 aborts the process when an endpoint is closed by force that is still connecting: one that nothing went through yet,
// nor failed, stays until either happens.
void UcxFabric::do_hang_up(uint64_t id) {
  auto it = peers_.find(id);
  if (it == peers_.end()) return;
  auto& peer = it->second;
  peer.gone = true;
  if (peer.ep != nullptr && !peer.proven && !peer.lost) return;
  close(peer);
  peers_.erase(it);
}

void UcxFabric::close(Peer& peer) {
  if (peer.pool_key != nullptr) ucp_rkey_destroy(peer.pool_key);
  if (peer.ep == nullptr) return;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  auto request = ucp_ep_close_nbx(peer.ep, &param);  // what is under way ends with an error
  if (UCS_PTR_IS_PTR(request)) closing_.insert(request);
}

// What was hung up while it connected, and has connected or failed since.
void UcxFabric::close_gone() {
  for (auto it = peers_.begin(); it != peers_.end();) {
    auto& peer = it->second;
    if (!peer.gone || !(peer.proven || peer.lost)) {
      ++it;
      continue;
    }
    close(peer);
    it = peers_.erase(it);
  }
  gone_changed_ = false;
}

void UcxFabric::operation_ended(const Operation& op, ucs_status_t status) {
  --operations_;
  auto it = peers_.find(op.peer);
  if (it == peers_.end()) return;
  it->second.proven = it->second.proven || status == UCS_OK;
  gone_changed_ = gone_changed_ || it->second.gone;
}

bool UcxFabric::under_way(ucs_status_ptr_t request) {
  if (!UCS_PTR_IS_PTR(request)) return false;
  ++operations_;
  return true;
}

void UcxFabric::do_send(uint64_t id, std::unique_ptr<Operation> op, const std::vector<iovec>& parts) {
  auto* peer = connected(id);
  if (peer == nullptr) return;
  op->peer = id;
  for (const auto& p : parts) op->parts.push_back({p.iov_base, p.iov_len});
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_DATATYPE;
  param.user_data = op.get();
  param.cb.send = [](void* request, ucs_status_t status, void* user) {
    auto* done = static_cast<Operation*>(user);  // a lost peer is told of by its error handler
    done->fabric->operation_ended(*done, status);
    delete done;
    ucp_request_free(request);
  };
  bool one = parts.size() == 1;
  param.datatype = one ? ucp_dt_make_contig(1) : ucp_dt_make_iov();
  const void* buffer = one ? parts[0].iov_base : static_cast<const void*>(op->parts.data());
  auto request = ucp_am_send_nbx(peer->ep, kMessageId, op->header.data(), op->header.size(), buffer,
                                 one ? parts[0].iov_len : op->parts.size(), &param);
  if (under_way(request)) return (void)op.release();
  if (UCS_PTR_IS_ERR(request)) lose(id, ucx_error("send", UCS_PTR_STATUS(request)).error());
}

void UcxFabric::do_read(uint64_t id, std::unique_ptr<Operation> op, const std::vector<RemotePiece>& pieces) {
  auto* peer = connected(id);
  if (peer == nullptr || peer->pool_key == nullptr) return;
  op->peer = id;
  size_t total = 0;
  for (const auto& p : pieces) total += p.length;
  op->buffer = staging_->take(total);
  if (!op->buffer) op->buffer = staging_->take_extra(total);  // asked for by us, within the credit we gave
  op->left = pieces.size() + 1;
  auto* o = op.release();
  size_t at = 0;
  for (const auto& p : pieces) {
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
    param.user_data = o;
    param.cb.send = [](void* request, ucs_status_t status, void* user) {
      auto* done = static_cast<Operation*>(user);
      done->fabric->operation_ended(*done, status);
      ucp_request_free(request);
      done->fabric->piece_done(done, status);
    };
    auto request = ucp_get_nbx(peer->ep, o->buffer->data.get() + at, p.length, p.address, peer->pool_key, &param);
    at += p.length;
    if (under_way(request)) continue;
    if (UCS_PTR_IS_ERR(request)) lose(id, ucx_error("read", UCS_PTR_STATUS(request)).error());
    piece_done(o, UCS_PTR_STATUS(request));
  }
  piece_done(o, UCS_OK);
}

void UcxFabric::piece_done(Operation* op, ucs_status_t status) {
  op->failed = op->failed || status != UCS_OK;
  if (--op->left > 0) return;
  if (!op->failed) deliver(op->key, op->head, std::move(op->buffer));
  delete op;
}

void UcxFabric::deliver(const Nonce& key, const ChunkHead& head, Staging::Ref bytes) {
  loop_.post([self = self_, key, head, bytes = std::move(bytes)] {
    if (*self == nullptr) return;
    auto it = (*self)->arrived_.find(key);
    if (it != (*self)->arrived_.end()) Arrived(it->second)(head, bytes);
  });
}

ucs_status_t UcxFabric::on_message(const void* header, size_t header_length, void* data, size_t length,
                                   const ucp_am_recv_param_t* param) {
  if (header_length != kHeaderBytes) return UCS_OK;  // of no peer of ours: dropped
  Waiting w{.head = {}, .descriptor = data, .length = length};
  std::memcpy(w.key.data(), header, w.key.size());
  Decoder decoder({static_cast<const std::byte*>(header) + w.key.size(), kChunkHeadBytes});
  w.head.fields(decoder);
  if (length > bytes_max_of(w.key) || length == 0) return UCS_OK;
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
    waiting_.push_back(w);
    return UCS_INPROGRESS;
  }
  auto buffer = staging_->take(length);
  if (!buffer) buffer = staging_->take_extra(length);  // UCX holds it already
  std::memcpy(buffer->data.get(), data, length);
  deliver(w.key, w.head, std::move(buffer));
  return UCS_OK;
}

// As staging has room: who waits has not sent its bytes yet, so a slow reader slows its senders down.
void UcxFabric::receive_waiting() {
  while (!waiting_.empty()) {
    auto w = waiting_.front();
    if (w.length > bytes_max_of(w.key)) {  // forgotten meanwhile
      ucp_am_data_release(worker_, w.descriptor);
      waiting_.pop_front();
      continue;
    }
    auto op = std::make_unique<Operation>();
    op->buffer = staging_->take(w.length);
    if (!op->buffer) return;
    waiting_.pop_front();
    op->fabric = this;
    op->key = w.key;
    op->head = w.head;
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_DATATYPE;
    param.datatype = ucp_dt_make_contig(1);
    param.user_data = op.get();
    param.cb.recv_am = [](void* request, ucs_status_t status, size_t, void* user) {
      auto* done = static_cast<Operation*>(user);
      done->fabric->operation_ended(*done, status);
      ucp_request_free(request);
      done->fabric->piece_done(done, status);
    };
    auto request = ucp_am_recv_data_nbx(worker_, w.descriptor, op->buffer->data.get(), w.length, &param);
    auto* o = op.release();
    if (!under_way(request)) piece_done(o, UCS_PTR_STATUS(request));
  }
}

void UcxFabric::end_everything() {
  for (auto& [id, peer] : peers_) {
    if (peer.ep == nullptr || peer.proven || peer.lost) close(peer);  // the others end with the worker
  }
  peers_.clear();
  for (auto& w : waiting_) ucp_am_data_release(worker_, w.descriptor);
  waiting_.clear();
  // Everything ends with an error now; a bound all the same.
  for (int turn = 0; (operations_ > 0 || !closing_.empty()) && turn < 100'000; ++turn) {
    ucp_worker_progress(worker_);
    std::erase_if(closing_, [](void* request) {
      if (ucp_request_check_status(request) == UCS_INPROGRESS) return false;
      ucp_request_free(request);
      return true;
    });
  }
}

}  // namespace baton::transfer::ucx
#endif
