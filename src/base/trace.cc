#include "base/trace.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <iterator>
#include <span>

#include "base/prng.h"

namespace baton {
namespace {

bool read_hex(std::string_view text, std::span<uint8_t> out) {
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

template <size_t N>
bool zeros(const std::array<uint8_t, N>& id) {
  return std::ranges::all_of(id, [](uint8_t b) { return b == 0; });
}

int64_t unix_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

bool TraceContext::valid() const { return !zeros(trace_id) && !zeros(span_id); }

std::optional<TraceContext> parse_traceparent(std::string_view text) {
  constexpr size_t kLength = 55;  // 2 + 1 + 32 + 1 + 16 + 1 + 2
  uint8_t version[1], flags[1];
  TraceContext out;
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return std::nullopt;
  if (!read_hex(text, version) || version[0] == 0xff) return std::nullopt;
  if (text.size() > kLength && (version[0] == 0 || text[kLength] != '-')) return std::nullopt;
  if (!read_hex(text.substr(3), out.trace_id) || !read_hex(text.substr(36), out.span_id) || !read_hex(text.substr(53), flags))
    return std::nullopt;
  out.sampled = (flags[0] & 1) != 0;
  if (!out.valid()) return std::nullopt;
  return out;
}

std::string traceparent(const TraceContext& context) {
  return "00-" + hex(context.trace_id) + "-" + hex(context.span_id) + (context.sampled ? "-01" : "-00");
}

// ---- Span

Span& Span::operator=(Span&& other) noexcept {
  if (this == &other) return *this;
  end();
  tracer_ = std::exchange(other.tracer_, nullptr);
  begin_ns_ = other.begin_ns_;
  record_ = std::move(other.record_);
  return *this;
}

void Span::set(std::string_view key, SpanAttribute::Value value) {
  if (on()) record_.attributes.push_back({std::string(key), std::move(value)});
}

void Span::fail(std::string_view error) {
  if (!on()) return;
  record_.failed = true;
  record_.error = error;
}

Span Span::child(std::string_view name, SpanKind kind, int64_t begin_ns) const {
  if (tracer_ == nullptr) return {};
  return tracer_->begin(name, kind, record_.context, begin_ns);
}

void Span::end(int64_t end_ns) {
  Tracer* tracer = std::exchange(tracer_, nullptr);
  if (tracer == nullptr || !record_.context.sampled) return;
  tracer->record(std::move(record_), begin_ns_, end_ns < 0 ? tracer->clock_.now_ns() : end_ns);
}

// ---- sampling

bool Sampler::sample(const TraceContext* parent, const std::array<uint8_t, 16>& trace_id) const {
  if (parent_decides && parent != nullptr) return parent->sampled;
  if (kind != Kind::kRatio) return kind == Kind::kOn;
  uint64_t low = 0;
  for (size_t i = 8; i < 16; ++i) low = low << 8 | trace_id[i];
  return static_cast<double>(low >> 1) < ratio * 0x1p63;  // as OpenTelemetry does, so that all who sample by ratio agree
}

std::optional<Sampler> parse_sampler(std::string_view name, std::string_view argument) {
  Sampler out{.parent_decides = false};
  constexpr std::string_view kParent = "parentbased_";
  if (name.starts_with(kParent)) {
    out.parent_decides = true;
    name.remove_prefix(kParent.size());
  }
  if (name == "always_on") return out;
  if (name == "always_off") return out.kind = Sampler::Kind::kOff, out;
  if (name != "traceidratio") return std::nullopt;
  out.kind = Sampler::Kind::kRatio;
  if (argument.empty()) return out;
  const auto [end, error] = std::from_chars(argument.data(), argument.data() + argument.size(), out.ratio);
  if (error != std::errc() || end != argument.data() + argument.size() || !(out.ratio >= 0 && out.ratio <= 1)) return std::nullopt;
  return out;
}

// ---- Tracer

Tracer::Tracer(TracerOptions options, const Clock& clock)
    : options_(options), clock_(clock), unix_offset_ns_(unix_ns() - clock.now_ns()), seed_(secure_random_u64()) {}

uint64_t Tracer::random() {
  const uint64_t draw = Prng::at(seed_, draws_.fetch_add(1, std::memory_order_relaxed));
  return draw != 0 ? draw : 1;
}

Span Tracer::begin(std::string_view name, SpanKind kind, const std::optional<TraceContext>& parent, int64_t begin_ns) {
  Span span;
  span.tracer_ = this;
  TraceContext& own = span.record_.context;
  const uint64_t id = random();
  std::memcpy(own.span_id.data(), &id, sizeof id);
  if (parent) {
    own.trace_id = parent->trace_id;
    span.record_.parent = parent->span_id;
  } else {
    const uint64_t halves[2] = {random(), random()};
    std::memcpy(own.trace_id.data(), halves, sizeof halves);
  }
  own.sampled = options_.sampler.sample(parent ? &*parent : nullptr, own.trace_id);
  if (!own.sampled) return span;
  span.record_.name = name;
  span.record_.kind = kind;
  span.begin_ns_ = begin_ns < 0 ? clock_.now_ns() : begin_ns;
  return span;
}

void Tracer::record(SpanRecord&& record, int64_t begin_ns, int64_t end_ns) {
  record.begin_unix_ns = begin_ns + unix_offset_ns_;
  record.end_unix_ns = std::max(begin_ns, end_ns) + unix_offset_ns_;
  recorded_.fetch_add(1, std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  if (queue_.size() >= options_.queue_max) return count_dropped(1);
  queue_.push_back(std::move(record));
  waiting_.store(queue_.size(), std::memory_order_relaxed);
}

std::vector<SpanRecord> Tracer::take(size_t most) {
  std::lock_guard lock(mutex_);
  const auto n = static_cast<std::ptrdiff_t>(std::min(most, queue_.size()));
  std::vector<SpanRecord> out(std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.begin() + n));
  queue_.erase(queue_.begin(), queue_.begin() + n);
  waiting_.store(queue_.size(), std::memory_order_relaxed);
  return out;
}

}  // namespace baton
