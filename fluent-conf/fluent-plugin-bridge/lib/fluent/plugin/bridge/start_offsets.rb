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
        # Timestamps that ask for the ends of a partition (Kafka's ListOffsets).
        BEGINNING = -2
        LAST = -1
        # What users may choose, as in librdkafka's CONFIGURATION.md.
        RESETS = {
          'earliest' => BEGINNING, 'smallest' => BEGINNING, 'beginning' => BEGINNING,
          'latest' => LAST, 'largest' => LAST, 'end' => LAST
        }.freeze
        # Seconds to wait for an answer; while a transaction is open there is none. On top comes fetch.wait.max.ms: a broker
        # answers in turn, and a fetch before may wait for messages.
        ANSWER = 1.0
        PAUSE = 1.0 # seconds until the next question
        private_constant :BEGINNING, :LAST, :ANSWER, :PAUSE

        # @param handle [FFI::Pointer] the consumer
        # @param reset [String] what to do where the group has no offset, or one whose message is gone
        # @param fetch_wait [Integer] fetch.wait.max.ms
        # @param log [Fluent::Log]
        def initialize(handle, reset, fetch_wait, log)
          @handle = handle
          @reset = reset
          @milliseconds = (ANSWER * 1000).to_i + fetch_wait
          @log = log
          @wanted = {}
          @next = 0
        end

        # @param partition [Array(String, Integer)] topic and number of one that is not read
        def want(partition)
          @wanted[partition] = true
        end

        # @param partition [Array(String, Integer)] one that is given up, or is to be read from its committed offset
        def forget(partition)
          @wanted.delete(partition)
        end

        # @return [Boolean] whether there are partitions that are not read
        def wanted?
          @wanted.any?
        end

        # @param others [Array<Array(String, Integer)>] partitions that are read, and will be assigned anew together with these
        # @return [Hash{Array(String, Integer) => Integer}] where to read on, for those that the broker gave an answer for;
        #   empty if that are only the others
        def find(others = [])
          return {} if now < @next

          offsets = starts(committed(others | @wanted.keys))
          answered = @wanted.count { |partition, _| offsets.key?(partition) }
          @next = now + PAUSE if answered < @wanted.size
          answered.zero? ? {} : offsets
        end

        private

        # @return [Hash{Array(String, Integer) => Integer}] OFFSET_INVALID where there is none; without those there is no answer for
        def committed(partitions)
          ask(partitions, Librdkafka::OFFSET_INVALID) { |list| Librdkafka.rd_kafka_committed(@handle, list, @milliseconds) }
        end

        # @return [Hash{Array(String, Integer) => Integer}] the offset of the first message, or the one after the last, of each
        #   partition; without those there is no answer for
        def edges(partitions, edge)
          found = ask(partitions, edge) { |list| Librdkafka.rd_kafka_offsets_for_times(@handle, list, @milliseconds) }
          found.select { |_, offset| offset >= 0 }
        end

        def ask(partitions, question)
          return {} if partitions.empty?

          Partitions.list(partitions.to_h { |partition| [partition, question] }) do |list|
            next {} unless yield(list).zero?

            Partitions.elements(list).select { |element| element[:err].zero? }
                      .to_h { |element| [[element[:topic], element[:partition]], element[:offset]] }
          end
        end

        # @param committed [Hash{Array(String, Integer) => Integer}]
        # @return [Hash{Array(String, Integer) => Integer}] where to go on reading, as far as it is known
        def starts(committed)
          lows = edges(committed.keys, BEGINNING)
          # Where nothing has been committed the end is of interest only to those who want to begin there.
          ends = edges(committed.select { |_, offset| offset >= 0 || at_end? }.keys, LAST)
          committed.filter_map do |partition, offset|
            place = start(partition, offset, lows[partition], ends[partition])
            [partition, place] if place
          end.to_h
        end

        def start(partition, offset, low, high)
          return first(partition, low, high) if offset == Librdkafka::OFFSET_INVALID
          return if low.nil? || high.nil?
          return offset if offset.between?(low, high)

          @log.warn("Kafka topic #{partition.join(' [')}]: the group's offset #{offset} is not there any more, only #{low} to #{high}" \
                    "#{": #{low - offset} messages were deleted unread" if offset < low}; reads on at the #{@reset}; " \
                    'if the topic was not made anew, raise its retention.ms and retention.bytes')
          first(partition, low, high)
        end

        # A number and nothing like "the beginning": librdkafka would ask for the offset of that, and where the partition is
        # assigned anew before the answer is there, it would ask once more half a second later and go back to it, whatever
        # has been read and committed meanwhile (rdkafka_partition.c of 2.15, rd_kafka_toppar_handle_Offset, OUTDATED).
        def first(partition, low, high)
          return low unless at_end?

          # The end is elsewhere a moment later: whoever asks again, because a batch failed or a member was replaced before
          # its first commit, would leave out what came meanwhile. So it is committed before anything is read.
          Partitions.list(partition => high) { |list| high if Librdkafka.rd_kafka_commit(@handle, list, 0).zero? } if high
        end

        def at_end?
          RESETS.fetch(@reset) == LAST
        end

        def now
          Process.clock_gettime(Process::CLOCK_MONOTONIC)
        end
      end
    end
  end
end
