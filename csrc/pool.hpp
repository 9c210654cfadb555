// What many threads share of a kernel object besides its constants.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace beingh0 {

// Scratch memory of callers: each takes one for a call, a new one is made only when more call at once than ever before.
template <typename T>
class Pool {
 public:
    class Lease {
     public:
        Lease(Pool& pool, std::unique_ptr<T> item) : pool_(pool), item_(std::move(item)) {}
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        ~Lease() {
            const std::lock_guard<std::mutex> lock(pool_.mutex_);
            pool_.free_.push_back(std::move(item_));
        }
        T& operator*() const noexcept { return *item_; }

     private:
        Pool& pool_;
        std::unique_ptr<T> item_;
    };

    template <typename Source>
    Lease take(const Source& source) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!free_.empty()) {
                std::unique_ptr<T> item = std::move(free_.back());
                free_.pop_back();
                return Lease(*this, std::move(item));
            }
            free_.reserve(++made_);
        }
        return Lease(*this, std::make_unique<T>(source));
    }

 private:
    std::mutex mutex_;
    std::vector<std::unique_ptr<T>> free_;
    std::size_t made_ = 0;
};

}  // namespace beingh0
