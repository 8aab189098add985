// Batch normalization, the addition of the shortcut and relu, in two passes over memory.
//
// Activations are rows of channels: (B * H * W, C), which is channels-last memory. `fused.py`
// compiles this file, calls it through ctypes, and says what each function computes.

#include <omp.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t LANES = 16;  // channels that are computed at a time
constexpr int64_t BLOCK = 1024;  // values whose sums are kept in float32, before those in float64

typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

struct bfloat16 {
  uint16_t bits;
};

// Some channels of a row as float32; lanes beyond `count` are zero.
inline Floats load(const float* from, int64_t count) {
  Floats values = {};
  std::memcpy(&values, from, count == LANES ? sizeof(values) : count * sizeof(float));
  return values;
}

inline Floats load(const bfloat16* from, int64_t count) {
  Halves halves = {};
  std::memcpy(&halves, from, count == LANES ? sizeof(halves) : count * sizeof(bfloat16));
  return (Floats)(__builtin_convertvector(halves, Words) << 16);
}

inline void store(float* to, Floats values, int64_t count) {
  std::memcpy(to, &values, count == LANES ? sizeof(values) : count * sizeof(float));
}

// Rounds to the nearest, ties to even; NaN stays NaN.
inline void store(bfloat16* to, Floats values, int64_t count) {
#ifdef __AVX512BF16__
  Halves halves = (Halves)_mm512_cvtneps_pbh((__m512)values);
#else
  Words words = (Words)values;
  Words rounded = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
  rounded = values != values ? (words >> 16) | 0x40 : rounded;
  Halves halves = __builtin_convertvector(rounded, Halves);
#endif
  std::memcpy(to, &halves, count == LANES ? sizeof(halves) : count * sizeof(bfloat16));
}

// The rows of a thread, `first` to `last`, exclusive, in blocks that fit into the first cache.
struct Share {
  int64_t first, last, block;
  Share(int64_t rows, int64_t channels) : block(std::max<int64_t>(BLOCK / channels, 4)) {
    int64_t blocks = (rows + block - 1) / block, threads = omp_get_num_threads();
    int64_t thread = omp_get_thread_num();
    first = std::min(rows, blocks * thread / threads * block);
    last = std::min(rows, blocks * (thread + 1) / threads * block);
  }
};

struct Two {
  Floats first, second;
};

// Calls `use(row, channel, count)` for the rows of a block, where `count` is a constant for all
// channels but the last few of a number that is no multiple of LANES.
template <class Use>
inline void each_row(int64_t first, int64_t last, int64_t count, Use use) {
  if (count == LANES) {
    for (int64_t row = first; row < last; ++row) use(row, LANES);
  } else {
    for (int64_t row = first; row < last; ++row) use(row, count);
  }
}

// Adds up two values of every row and channel, in float32 within a block, in float64 over blocks.
// `values_from(channel)` returns a function of an index and a number of channels.
template <class ValuesFrom>
void add_up(Share share, int64_t channels, double* sums, ValuesFrom values_from) {
  for (int64_t block = share.first; block < share.last; block += share.block) {
    int64_t end = std::min(share.last, block + share.block);
    for (int64_t channel = 0; channel < channels; channel += LANES) {
      int64_t count = std::min(LANES, channels - channel);
      auto values = values_from(channel);
      Two total = {};
      each_row(block, end, count, [&](int64_t row, int64_t width) {
        Two added = values(row * channels + channel, width);
        total.first += added.first;
        total.second += added.second;
      });
      for (int64_t lane = 0; lane < count; ++lane) {
        sums[channel + lane] += total.first[lane];
        sums[channels + channel + lane] += total.second[lane];
      }
    }
  }
}

// Writes every row and channel. `writer_from(channel)` returns a function of an index and a number
// of channels.
template <class WriterFrom>
void write_rows(Share share, int64_t channels, WriterFrom writer_from) {
  for (int64_t block = share.first; block < share.last; block += share.block) {
    int64_t end = std::min(share.last, block + share.block);
    for (int64_t channel = 0; channel < channels; channel += LANES) {
      auto write = writer_from(channel);
      each_row(block, end, std::min(LANES, channels - channel),
               [&](int64_t row, int64_t width) { write(row * channels + channel, width); });
    }
  }
}

// The sums of all threads, two of each channel.
struct Sums {
  int64_t channels;
  std::vector<double> values;
  Sums(int64_t channels, int threads) : channels(channels), values(threads * 2 * channels) {}
  double* of_thread(int thread) { return &values[thread * 2 * channels]; }
  void gather(int threads) {
    for (int thread = 1; thread < threads; ++thread)
      for (int64_t index = 0; index < 2 * channels; ++index)
        values[index] += of_thread(thread)[index];
  }
};

// One value per channel, padded so that they can be read LANES at a time.
struct PerChannel {
  std::vector<float> values;
  explicit PerChannel(int64_t channels) : values(channels + LANES) {}
  PerChannel(int64_t channels, const float* from) : PerChannel(channels) {
    std::memcpy(values.data(), from, channels * sizeof(float));
  }
  float& operator[](int64_t index) { return values[index]; }
  Floats at(int64_t channel) const { return load(&values[channel], LANES); }
};

template <bool ADDS, class T>
void forward(const T* rows, const T* added, const float* weight, const float* bias,
             const float* shift_values, double eps, T* output, float* mean, float* variance,
             int64_t count, int64_t channels, int threads) {
  PerChannel shift(channels, shift_values), factor(channels), offset(channels);
  Sums sums(channels, threads);
#pragma omp parallel num_threads(threads)
  {
    Share share(count, channels);
    add_up(share, channels, sums.of_thread(omp_get_thread_num()), [&](int64_t channel) {
      return [=, shift = shift.at(channel)](int64_t index, int64_t width) {
        Floats shifted = load(rows + index, width) - shift;
        return Two{shifted, shifted * shifted};
      };
    });
#pragma omp barrier
#pragma omp single
    {
      sums.gather(omp_get_num_threads());
      for (int64_t channel = 0; channel < channels; ++channel) {
        double shifted = sums.values[channel] / count;
        double spread = sums.values[channels + channel] / count - shifted * shifted;
        variance[channel] = spread < 0 ? 0 : spread;  // NaN stays NaN
        mean[channel] = shifted + shift[channel];
        factor[channel] = weight[channel] / std::sqrt(variance[channel] + eps);
        offset[channel] = bias[channel] - mean[channel] * factor[channel];
      }
    }
    write_rows(share, channels, [&](int64_t channel) {
      return [=, factor = factor.at(channel), offset = offset.at(channel)](int64_t index,
                                                                           int64_t width) {
        Floats values = load(rows + index, width) * factor + offset;
        if constexpr (ADDS) values += load(added + index, width);
        store(output + index, values < 0 ? Floats{} : values, width);
      };
    });
  }
}

template <bool ADDED, class T>
void backward(const T* gradient, const T* rows, const T* output, const float* weight,
              const float* bias, const float* mean_values, const float* variance, double eps,
              T* grad_rows, T* grad_added, float* grad_weight, float* grad_bias, int64_t count,
              int64_t channels, int threads) {
  PerChannel mean(channels, mean_values), factor(channels), offset(channels);
  PerChannel constant(channels), slope(channels);
  Sums sums(channels, threads);
  for (int64_t channel = 0; channel < channels; ++channel) {
    factor[channel] = weight[channel] / std::sqrt(variance[channel] + eps);
    offset[channel] = bias[channel] - mean[channel] * factor[channel];
  }
#pragma omp parallel num_threads(threads)
  {
    Share share(count, channels);
    add_up(share, channels, sums.of_thread(omp_get_thread_num()), [&](int64_t channel) {
      return [=, mean = mean.at(channel), factor = factor.at(channel),
              offset = offset.at(channel)](int64_t index, int64_t width) {
        Floats values = load(rows + index, width);
        Floats before = values * factor + offset;  // of relu
        if constexpr (ADDED) before = load(output + index, width);
        Floats passed = before > 0 ? load(gradient + index, width) : Floats{};
        if constexpr (ADDED) store(grad_added + index, passed, width);
        return Two{passed, passed * (values - mean)};
      };
    });
#pragma omp barrier
#pragma omp single
    {
      sums.gather(omp_get_num_threads());
      for (int64_t channel = 0; channel < channels; ++channel) {
        double inverse = 1 / std::sqrt(variance[channel] + eps);
        grad_bias[channel] = sums.values[channel];
        grad_weight[channel] = sums.values[channels + channel] * inverse;
        constant[channel] = sums.values[channel] / count;
        slope[channel] = inverse * grad_weight[channel] / count;
      }
    }
    write_rows(share, channels, [&](int64_t channel) {
      return [=, mean = mean.at(channel), factor = factor.at(channel),
              offset = offset.at(channel), constant = constant.at(channel),
              slope = slope.at(channel)](int64_t index, int64_t width) {
        Floats values = load(rows + index, width), passed;
        if constexpr (ADDED) {
          passed = load(grad_added + index, width);
        } else {
          passed = values * factor + offset > 0 ? load(gradient + index, width) : Floats{};
        }
        store(grad_rows + index, factor * (passed - constant - (values - mean) * slope), width);
      };
    });
  }
}

}  // namespace

#define FUNCTIONS(T, NAME)                                                                       \
  extern "C" void forward_##NAME(const T* rows, const T* added, const float* weight,             \
                                 const float* bias, const float* shift, double eps, T* output,   \
                                 float* mean, float* variance, int64_t count, int64_t channels,  \
                                 int threads) {                                                  \
    auto function = added ? forward<true, T> : forward<false, T>;                                \
    function(rows, added, weight, bias, shift, eps, output, mean, variance, count, channels,     \
             threads);                                                                           \
  }                                                                                              \
  extern "C" void backward_##NAME(                                                               \
      const T* gradient, const T* rows, const T* output, const float* weight, const float* bias, \
      const float* mean, const float* variance, double eps, T* grad_rows, T* grad_added,         \
      float* grad_weight, float* grad_bias, int64_t count, int64_t channels, int threads) {      \
    auto function = output ? backward<true, T> : backward<false, T>;                             \
    function(gradient, rows, output, weight, bias, mean, variance, eps, grad_rows, grad_added,   \
             grad_weight, grad_bias, count, channels, threads);                                  \
  }

FUNCTIONS(float, float32)
FUNCTIONS(bfloat16, bfloat16)
