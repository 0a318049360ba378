# frozen_string_literal: true

require 'fluent/plugin/bridge/librdkafka'
require 'fluent/plugin/bridge/partitions'

module Fluent
  module Plugin
    module Bridge
      # Where partitions are read from that librdkafka found no offset for.
      #
      # Its own auto.offset.reset must not decide that: it sets in as well where there is a committed offset that the
      # broker holds back because of an open transaction, if the assignment changed while librdkafka asked
      # (rdkafka_assignment.c of 2.15, rd_kafka_assignment_apply_offsets: the partition comes back with the offset INVALID).
      # Everything would be read once more. So librdkafka is set to report an error, and the broker is asked anew.
      class StartOffsets
        # For librdkafka: the partition is not read, and a message with this code says so.
        SETTING = { 'auto.offset.reset' => 'error' }.freeze
        # What users may choose, as in librdkafka's CONFIGURATION.md.
        RESETS = {
          'earliest' => Librdkafka::OFFSET_BEGINNING, 'smallest' => Librdkafka::OFFSET_BEGINNING,
          'beginning' => Librdkafka::OFFSET_BEGINNING,
          'latest' => Librdkafka::OFFSET_END, 'largest' => Librdkafka::OFFSET_END, 'end' => Librdkafka::OFFSET_END
        }.freeze
        ANSWER = 1.0 # seconds to wait for an answer; while a transaction is open there is none
        PAUSE = 1.0 # seconds until the next question
        private_constant :ANSWER, :PAUSE

        # @param handle [FFI::Pointer] the consumer
        # @param reset [String] what to do where the group has no offset, or one whose message is gone
        # @param log [Fluent::Log]
        def initialize(handle, reset, log)
          @handle = handle
          @reset = reset
          @log = log
          @wanted = {}
          @next = 0
        end

        # @param partition [Array(String, Integer)] topic and number of one that is not read
        def want(partition)
          @wanted[partition] = Librdkafka::OFFSET_INVALID
        end

        # @param partition [Array(String, Integer)] one that is given up, or is to be read from its committed offset
        def forget(partition)
          @wanted.delete(partition)
        end

        # @return [Hash{Array(String, Integer) => Integer}] where to read on, for those that the broker gave an answer for
        def find
          return {} if @wanted.empty? || now < @next

          offsets = committed(@wanted).to_h { |partition, offset| [partition, start(partition, offset)] }.compact
          @next = now + PAUSE if offsets.size < @wanted.size
          offsets
        end

        private

        # @return [Hash{Array(String, Integer) => Integer}] OFFSET_INVALID where there is none; empty if there is no answer
        def committed(partitions)
          Partitions.list(partitions) do |list|
            next {} unless Librdkafka.rd_kafka_committed(@handle, list, milliseconds).zero?

            Partitions.elements(list).reject { |element| element[:err].positive? }.to_h do |element|
              [[element[:topic], element[:partition]], element[:offset]]
            end
          end
        end

        # @return [Integer, nil] where to go on reading; nil: not known yet
        def start(partition, offset)
          return first(partition) if offset == Librdkafka::OFFSET_INVALID

          low, high = watermarks(partition)
          return if low.nil?
          return offset if offset.between?(low, high)

          @log.warn("Kafka topic #{partition.join(' [')}]: the group's offset #{offset} is not there any more, only #{low} to #{high}" \
                    "#{": #{low - offset} messages were deleted unread" if offset < low}; reads on at the #{@reset}; " \
                    'if the topic was not made anew, raise its retention.ms and retention.bytes')
          first(partition)
        end

        # The end is elsewhere a moment later: whoever asks again, because a batch failed or a member was replaced before
        # its first commit, would leave out what came meanwhile. So it is committed before anything is read.
        def first(partition)
          reset = RESETS.fetch(@reset)
          return reset unless reset == Librdkafka::OFFSET_END

          _, high = watermarks(partition)
          Partitions.list(partition => high) { |list| high if Librdkafka.rd_kafka_commit(@handle, list, 0).zero? } if high
        end

        # @return [Array<Integer>, nil] the first offset and the one after the last; nil if there is no answer
        def watermarks(partition)
          low = FFI::MemoryPointer.new(:int64)
          high = FFI::MemoryPointer.new(:int64)
          return unless Librdkafka.rd_kafka_query_watermark_offsets(@handle, *partition, low, high, milliseconds).zero?

          [low, high].map(&:read_int64)
        end

        def milliseconds
          (ANSWER * 1000).to_i
        end

        def now
          Process.clock_gettime(Process::CLOCK_MONOTONIC)
        end
      end
    end
  end
end
