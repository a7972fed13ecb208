#include "transfer/resolver.h"

namespace baton::transfer {

Resolver::~Resolver() {
  {
    std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  asked_.notify_one();
  if (thread_.joinable()) thread_.join();
}

uint64_t Resolver::ask(const HostPort& where, Answer answer) {
  auto ticket = next_ticket_++;
  answers_[ticket] = std::move(answer);
  if (auto numeric = resolve(where, true)) {
    loop_.defer([this, ticket, addresses = *std::move(numeric)]() mutable { deliver(ticket, std::move(addresses)); });
    return ticket;
  }
  {
    std::scoped_lock lock(mutex_);
    questions_.emplace_back(ticket, where);
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  asked_.notify_one();
  return ticket;
}

void Resolver::deliver(uint64_t ticket, Result<std::vector<Address>> addresses) {
  auto it = answers_.find(ticket);
  if (it == answers_.end()) return;
  auto answer = std::move(it->second);
  answers_.erase(it);
  answer(std::move(addresses));
}

void Resolver::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    asked_.wait(lock, [this] { return stop_ || !questions_.empty(); });
    if (stop_) return;
    auto [ticket, where] = std::move(questions_.front());
    questions_.pop_front();
    lock.unlock();
    auto addresses = resolve(where, false);
    loop_.post([this, ticket, addresses = std::move(addresses)]() mutable { deliver(ticket, std::move(addresses)); });
    lock.lock();
  }
}

}  // namespace baton::transfer
