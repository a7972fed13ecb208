#include "picker/picker.h"

#include <algorithm>

#include "picker/core.h"
#include "picker/flight.h"

namespace baton::picker {
namespace {

class PickerImpl final : public Picker {
 public:
  explicit PickerImpl(Core& core) : core_(core) {}
  PickerImpl(PickerOptions options, std::shared_ptr<const route::Plan> plan, Metrics& metrics, const Clock& clock)
      : own_(std::make_unique<Core>(std::move(options), std::move(plan), metrics, clock)), core_(*own_) {}

  Result<> start() override { return core_.start(); }
  void stop() override { core_.stop(); }
  void set_plan(std::shared_ptr<const route::Plan> plan) override { core_.set_plan(std::move(plan)); }
  void set_cluster(std::shared_ptr<const discovery::ClusterState> state) override { core_.set_cluster(std::move(state)); }
  std::unique_ptr<Flight> begin(const Head& head) override { return std::make_unique<FlightImpl>(core_, head); }
  std::shared_ptr<BodyReader> begin_body(std::string_view path) override { return begin_body_reader(core_, path); }
  std::expected<std::string, Refusal> any_endpoint(const Subset& subset) override;

  bool ready() const override { return core_.live()->cluster->synced && !core_.stopped; }
  bool can_serve() const override;
  bool knows_model(std::string_view id) const override { return core_.pool.view()->knows_model(id); }
  std::vector<std::string> model_cards() const override;
  void report_down(std::string_view address) override { core_.report_down(address); }
  void refresh_metrics() override { core_.refresh_metrics(); }
  std::string debug_json() const override { return core_.debug_json(); }

 private:
  std::unique_ptr<Core> own_;
  Core& core_;
};

// As decide(): by host, the port ignored; "[::1]:80", "::1" and "10.0.0.1:80" alike.
std::string_view host_of(std::string_view entry) {
  if (entry.starts_with('[')) return entry.substr(1, std::min(entry.find(']'), entry.size()) - 1);
  const size_t colon = entry.rfind(':');
  const bool v6 = colon != std::string_view::npos && entry.find(':') != colon;
  return v6 ? entry : entry.substr(0, colon);
}

std::expected<std::string, Refusal> PickerImpl::any_endpoint(const Subset& subset) {
  const auto view = core_.pool.view();
  const bool narrowed = subset.given && core_.options.subset_filter;
  std::vector<size_t> decode, other;
  for (size_t i = 0; i < view->endpoints.size(); ++i) {
    const route::Endpoint& e = view->endpoints[i];
    const auto here = [&](const std::string& entry) { return host_of(entry) == e.host; };
    if (!view->states[i]->healthy || (narrowed && std::ranges::none_of(subset.endpoints, here))) continue;
    (route::decodes(e.role) ? decode : other).push_back(i);
  }
  const auto& from = decode.empty() ? other : decode;
  if (from.empty() && !narrowed)
    return std::unexpected(
        Refusal{.status = 500, .message = "no pods available in datastore", .drop_reason = "", .retry_after_s = 0});
  if (from.empty())
    return std::unexpected(Refusal{.status = 503,
                                   .message = "no endpoint of the subset is available",
                                   .drop_reason = "rejected-no-endpoints",
                                   .retry_after_s = 1});
  return view->endpoints[from[core_.prng().below(from.size())]].address;
}

bool PickerImpl::can_serve() const {
  const auto view = core_.pool.view();
  for (size_t i = 0; i < view->states.size(); ++i) {
    if (view->states[i]->healthy && route::decodes(view->endpoints[i].role)) return true;
  }
  // A pool whose decode workers are all gone may still be served by its prefill workers (Why::kPrefillServesAll).
  return std::ranges::any_of(view->states, [](const auto& state) { return state->healthy.load(); });
}

std::vector<std::string> PickerImpl::model_cards() const {
  std::vector<std::string> out;
  for (const ModelCard& card : core_.pool.view()->models) out.push_back(card.json);
  return out;
}

}  // namespace

std::unique_ptr<Picker> picker_of(Core& core) { return std::make_unique<PickerImpl>(core); }

std::unique_ptr<Picker> Picker::make(PickerOptions options, std::shared_ptr<const route::Plan> plan, Metrics& metrics,
                                     const Clock& clock) {
  return std::make_unique<PickerImpl>(std::move(options), std::move(plan), metrics, clock);
}

}  // namespace baton::picker
