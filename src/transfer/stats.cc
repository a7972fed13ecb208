#include "transfer/stats.h"

namespace baton::transfer {
namespace {

const std::vector<double> kXferSeconds = {.005, .01, .025, .05, .075, .1, .2, .3, .5, .75, 1, 5};
const std::vector<double> kPostSeconds = {.001, .005, .01, .025, .05, .075, .1, .2, .3, .5, .75, 1, 5};
const std::vector<double> kBytes = {0x1p11, 0x1p13, 0x1p15, 0x1p17, 0x1p19, 0x1p21,
                                    0x1p23, 0x1p25, 0x1p27, 0x1p29, 0x1p31, 0x1p33};
const std::vector<double> kDescriptors = {10, 20, 30, 50, 75, 100, 200, 400, 1000, 2000, 4000, 10000, 20000, 50000};

std::string lower(std::string_view s) {
  std::string out(s);
  for (auto& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}

}  // namespace

Stats::Stats(Metrics& m, const Labels& labels)
    : xfer_seconds(m.histogram("vllm:nixl_xfer_time_seconds", "Histogram of transfer duration for KV cache transfers.",
                               kXferSeconds, labels)),
      post_seconds(m.histogram("vllm:nixl_post_time_seconds", "Histogram of transfer post time for KV cache transfers.",
                               kPostSeconds, labels)),
      bytes(m.histogram("vllm:nixl_bytes_transferred", "Histogram of bytes transferred per KV cache transfer.", kBytes, labels)),
      descriptors(m.histogram("vllm:nixl_num_descriptors", "Histogram of number of descriptors per KV cache transfer.",
                              kDescriptors, labels)),
      failed_transfers(m.counter("vllm:nixl_num_failed_transfers", "Number of failed KV cache transfers.", labels)),
      failed_notifications(m.counter("vllm:nixl_num_failed_notifications", "Number of failed KV cache notifications.", labels)),
      integrity_errors(m.counter("kv_integrity_errors", "Chunks whose checksum differed.", {})),
      received_bytes(m.counter("kv_transfer_bytes", "Bytes of KV blocks received and verified, chunk by chunk.", {})),
      expired_requests(m.counter("vllm:nixl_num_kv_expired_reqs", "Number of requests whose KV blocks expired unread.", labels)),
      lease_expired(m.counter("kv_lease_expired", "Grants whose lease ended before they were read.", {})),
      computing(m.gauge("kv_grants", "Grants alive, by state.", {{"state", "computing"}})),
      offered(m.gauge("kv_grants", "Grants alive, by state.", {{"state", "offered"}})),
      reading(m.gauge("kv_grants", "Grants alive, by state.", {{"state", "reading"}})),
      revoking(m.gauge("kv_grants", "Grants alive, by state.", {{"state", "revoking"}})),
      retained_bytes(m.gauge("kv_retained_bytes", "Bytes of KV blocks kept for grants.", {})),
      metrics_(m) {}

void Stats::failure(Code code) {
  failed_transfers.inc();
  metrics_
      .counter("kv_transfer_failures", "Fetches that did not deliver everything, by reason.",
               {{"reason", lower(code_name(code))}})
      .inc();
}

void Stats::moved(Path path, size_t n_bytes, double seconds, size_t n_descriptors) {
  xfer_seconds.observe(seconds);
  bytes.observe(static_cast<double>(n_bytes));
  descriptors.observe(static_cast<double>(n_descriptors));
  Labels by{{"path", std::string(path_name(path))}};
  metrics_.counter("kv_transfer_ops", "Fetches that delivered everything.", by).inc();
  metrics_.counter("kv_transfer_bytes", "Bytes they brought.", by).inc(static_cast<double>(n_bytes));
  metrics_.counter("kv_transfer_descriptors", "Blocks they brought.", by).inc(static_cast<double>(n_descriptors));
  metrics_.histogram("kv_transfer_seconds", "How long they took.", kXferSeconds, by).observe(seconds);
}

void Stats::peer(const std::string& address, int state) {
  metrics_.gauge("kv_peer_state", "1 connected, 0 connecting, -1 refused.", {{"peer", address}}).set(state);
}

void Stats::path(const std::string& address, Path path, double bytes_per_s, bool slow) {
  Labels by{{"peer", address}, {"path", std::string(path_name(path))}};
  metrics_.gauge("kv_path_bandwidth", "Bytes per second of the start-up self-test.", by).set(bytes_per_s);
  metrics_.gauge("kv_path_slow", "1: slower than a path of its kind should be.", by).set(slow ? 1 : 0);
}

}  // namespace baton::transfer
