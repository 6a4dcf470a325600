// The statistics that a batch norm needs.

#include "statistics.h"

namespace {

// Mean and biased variance (C,) per channel of x (N, pixels, C).
struct ChannelStatistics {
  int64_t N, pixels, C, threads;
  const void* x;
  void *mean, *variance;
};

template <typename T>
void statistics(const ChannelStatistics& s) {
  std::vector<double> sums(s.N * s.C), squares(s.N * s.C);
#pragma omp parallel for schedule(static) num_threads(s.threads)
  for (int64_t n = 0; n < s.N; n++)
    plane_statistics<T>(static_cast<const T*>(s.x) + n * s.pixels * s.C, s.pixels, s.C, s.C, &sums[n * s.C],
                        &squares[n * s.C]);
  combine_statistics<T>(s.N, s.C, s.pixels, sums.data(), squares.data(), static_cast<T*>(s.mean),
                        static_cast<T*>(s.variance));
}

}  // namespace

EXPORT(channel_statistics, ChannelStatistics, statistics<T>(settings))
