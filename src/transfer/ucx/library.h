#pragma once
// UCX's library, loaded when the first Fabric opens and kept until the process ends. It is not linked: loading it puts hooks
// under libc's memory functions and takes over its signal handlers, which a process whose KV goes another way must not pay for.
// Here are the functions that we use, under their own names: in this namespace they are pointers, null until load(). One that is
// missing in the list does not link. Included by what calls UCX alone. Threads: load() from any; the pointers from whoever saw it
// succeed.
#if BATON_HAS_UCX
#include <ucp/api/ucp.h>

#include "base/result.h"

// clang-format off
#define BATON_UCX_FUNCTIONS(F) \
  F(ucp_am_data_release) F(ucp_am_recv_data_nbx) F(ucp_am_send_nbx) F(ucp_cleanup) F(ucp_config_read) \
  F(ucp_config_release) F(ucp_ep_close_nbx) F(ucp_ep_create) F(ucp_ep_rkey_unpack) F(ucp_get_nbx) F(ucp_get_version) \
  F(ucp_init_version) F(ucp_mem_map) F(ucp_mem_unmap) F(ucp_request_check_status) F(ucp_request_free) \
  F(ucp_rkey_buffer_release) F(ucp_rkey_destroy) F(ucp_rkey_pack) F(ucp_worker_arm) F(ucp_worker_create) \
  F(ucp_worker_destroy) F(ucp_worker_get_address) F(ucp_worker_get_efd) F(ucp_worker_progress) \
  F(ucp_worker_release_address) F(ucp_worker_set_am_recv_handler) F(ucs_status_string)
// clang-format on

namespace baton::transfer::ucx {

#define BATON_UCX_POINTER(name) inline decltype(&::name) name = nullptr;
BATON_UCX_FUNCTIONS(BATON_UCX_POINTER)
#undef BATON_UCX_POINTER

// Once; a failure may be another one the next time. kUnavailable: this machine has no UCX that we can use.
Result<> load();

}  // namespace baton::transfer::ucx
#endif
