# frozen_string_literal: true

require 'fluent/plugin/bridge/batch'
require 'fluent/plugin/bridge/client_log'
require 'fluent/plugin/bridge/client_options'
require 'fluent/plugin/bridge/group_metadata'
require 'fluent/plugin/bridge/kafka_error'
require 'fluent/plugin/bridge/librdkafka'
require 'fluent/plugin/bridge/partitions'
require 'fluent/plugin/bridge/start_offsets'

module Fluent
  module Plugin
    module Bridge
      # A member of a consumer group that reads a batch at a time. Used by one thread at a time.
      class Consumer
        CONSUMER = 1 # rd_kafka_type_t
        FIRST_STEP = 500 # messages, while their size is not known
        # librdkafka leaves a partition alone then until it is assigned anew (rdkafka_assignment.c,
        # rd_kafka_assignment_apply_offsets and rd_kafka_assignment_handle_OffsetFetch).
        STUCK = 'Failed to fetch committed offset'
        REWIND_EVERY = 1.0 # seconds, for those that are stuck
        FETCH_WAIT = 500 # milliseconds; librdkafka's default
        private_constant :CONSUMER, :FETCH_WAIT, :FIRST_STEP, :STUCK, :REWIND_EVERY

        # @param options [Hash{String => Object}] settings of librdkafka
        # @param topics [Array<String>] topics, or regular expressions that begin with ^
        # @param log [Fluent::Log]
        # @param on_rebalance [#call] gets :assigned, :revoked or :lost and a list of [topic, partition]
        # @raise [KafkaError, Fluent::ConfigError] it cannot be made of these settings
        def initialize(options, topics, log:, on_rebalance: nil)
          @options = options.merge(StartOffsets::SETTING)
          @log = ClientLog.new(log, "group #{options['group.id']}", options)
          @on_rebalance = on_rebalance
          @assigned = {} # partitions with the offset INVALID, which stands for the committed one
          @paused = false
          @revoked = false
          @disturbed = false
          @rewind_at = nil
          @fatal = nil # why it cannot go on
          @bytes_a_message = nil
          @positions = {}
          open
          reset = options.fetch('auto.offset.reset', 'earliest')
          @starts = StartOffsets.new(@handle, reset, options.fetch('fetch.wait.max.ms', FETCH_WAIT).to_i, log)
          begin
            subscribe(topics)
          rescue StandardError
            close
            raise
          end
        end

        # @return [Array<Array(String, Integer)>] topic and partition of each that this member has
        def assignment
          @assigned.keys
        end

        # Reads what there is.
        #
        # @param max_events [Integer]
        # @param max_bytes [Integer] of payloads, met by the mean size of the messages of the batch before
        # @param timeout [Float] seconds to wait for the first message
        # @param wait [Float] seconds to wait for more after it
        # @return [Batch, nil] one with a message at least; nil if nothing came
        # @raise [KafkaError] it cannot go on: it must be closed
        def read(max_events:, max_bytes:, timeout:, wait:)
          resume
          rewind if @disturbed || (@rewind_at && now > @rewind_at)
          start_where_wanted
          @revoked = false
          limit = limit_of(max_events, max_bytes)
          @pointers = FFI::MemoryPointer.new(:pointer, max_events) if @pointers.nil? || @pointers.size < max_events * 8
          count = first(timeout)
          count += consume(1, limit - 1, wait) if count == 1 && limit > 1
          @log.serve
          batch = Batch.new(@pointers.get_array_of_uint64(0, count)) if count.positive?
          return batch unless @fatal || (batch && @revoked)

          # Part of what was read belongs to somebody else by now.
          batch&.free
          rewind
          nil
        end

        # Takes note of a batch that was gone through, as far as it was.
        def seen(batch)
          @bytes_a_message = batch.bytes / batch.events if batch.bytes.positive?
          # Not of what was taken away meanwhile: its lag is somebody else's.
          batch.first_offsets.each { |partition, offset| @positions[partition] ||= offset if @assigned.key?(partition) }
          batch.complaints.each { |complaint| hear(complaint) }
        end

        # Takes note of offsets that were committed.
        #
        # @param offsets [Hash{Array(String, Integer) => Integer}] by topic and partition
        def committed(offsets)
          @positions.merge!(offsets.slice(*@assigned.keys))
        end

        # What tells the coordinator who commits: the member under the generation of this moment.
        # Between the reading of a batch and its commit it must not be asked for anew, or a member that has lost
        # a partition meanwhile would be taken for its owner.
        #
        # @return [GroupMetadata] to be freed
        # @raise [NotAMember] it is in no group now
        def group_metadata
          GroupMetadata.new(Librdkafka.rd_kafka_consumer_group_metadata(@handle))
        end

        # Commits offsets of partitions that are still this member's, and waits for it.
        #
        # @param offsets [Hash{Array(String, Integer) => Integer}] by topic and partition
        # @raise [KafkaError]
        def commit(offsets)
          mine = offsets.slice(*@assigned.keys)
          Partitions.list(mine) { |list| check(Librdkafka.rd_kafka_commit(@handle, list, 0), 'commit of offsets') } unless mine.empty?
        end

        # Goes back to the committed offsets in all partitions: they are given up and taken again, which
        # fetches the offsets as the broker has them once no transaction is open on them any more.
        #
        # @raise [KafkaError] it could not be done: the consumer must be closed
        def rewind
          raise @fatal if @fatal

          resume
          @disturbed = false
          @rewind_at = nil
          assign_anew(@assigned)
        end

        # Serves the group while the pipeline is busy with a batch: without a poll within
        # max.poll.interval.ms the member is thrown out. Partitions are paused, so nothing is read.
        def keep_alive
          @paused = true
          Partitions.list(@assigned) { |list| Librdkafka.rd_kafka_pause_partitions(@handle, list) } unless @assigned.empty?
          FFI::MemoryPointer.new(:pointer, 16) do |pointers|
            count = Librdkafka.rd_kafka_consume_batch_queue(@queue, 0, pointers, 16)
            pointers.get_array_of_uint64(0, count).each { |address| Librdkafka.rd_kafka_message_destroy(address) }
            # From a partition that came new, or from before the pause: to be read again.
            @disturbed = true if count.positive?
          end
        end

        # @return [Hash{Array(String, Integer) => Integer}] messages not yet committed in each partition that some were
        #   read from, as far as the last answers to fetches tell
        def lag
          low = FFI::MemoryPointer.new(:int64)
          high = FFI::MemoryPointer.new(:int64)
          @positions.to_a.each_with_object({}) do |((topic, partition), position), lags|
            error = Librdkafka.rd_kafka_get_watermark_offsets(@handle, topic, partition, low, high)
            lags[[topic, partition]] = [high.read_int64 - position, 0].max if error.zero?
          end
        end

        # Leaves the group.
        def close
          return if @handle.nil?

          Librdkafka.rd_kafka_consumer_close(@handle)
          Librdkafka.rd_kafka_queue_destroy(@queue)
          @log.close
          Librdkafka.rd_kafka_destroy(@handle)
          @handle = nil
        end

        private

        def open
          configuration = ClientOptions.native(@options.merge('log.queue' => 'true'))
          # Called inside of consume, in the thread that called it. Both must live as long as the client.
          @rebalance = FFI::Function.new(:void, %i[pointer int pointer pointer]) { |_, code, list| rebalance(code, list) }
          @error = FFI::Function.new(:void, %i[pointer int string pointer]) { |_, code, text| report(code, text) }
          Librdkafka.rd_kafka_conf_set_rebalance_cb(configuration, @rebalance)
          Librdkafka.rd_kafka_conf_set_error_cb(configuration, @error)
          Librdkafka.rd_kafka_conf_set_events(configuration, Librdkafka::EVENT_LOG)
          message = FFI::MemoryPointer.new(:char, 512)
          @handle = Librdkafka.rd_kafka_new(CONSUMER, configuration, message, 512)
          if @handle.null?
            Librdkafka.rd_kafka_conf_destroy(configuration)
            raise Fluent::ConfigError, "Kafka consumer: #{message.read_string}"
          end
          @log.attach(@handle)
          Librdkafka.rd_kafka_poll_set_consumer(@handle)
          @queue = Librdkafka.rd_kafka_queue_get_consumer(@handle)
        end

        def subscribe(topics)
          list = Librdkafka.rd_kafka_topic_partition_list_new(topics.size)
          topics.each { |topic| Librdkafka.rd_kafka_topic_partition_list_add(list, topic, Librdkafka::PARTITION_UNASSIGNED) }
          check(Librdkafka.rd_kafka_subscribe(@handle, list), 'subscription')
        ensure
          Librdkafka.rd_kafka_topic_partition_list_destroy(list)
        end

        # At most what is in librdkafka's queue comes on top, which queued.max.messages.kbytes bounds.
        def limit_of(max_events, max_bytes)
          return [FIRST_STEP, max_events].min if @bytes_a_message.nil?

          (max_bytes / [@bytes_a_message, 1].max).clamp(1, max_events)
        end

        # Reads the first message of a batch. A message that is a complaint is none; they come together, one a partition.
        #
        # @return [Integer] 1 if there is one
        def first(timeout)
          while (count = consume(0, 1, timeout)) == 1
            return count if Librdkafka::MEMORY.get_int32(@pointers.get_uint64(0) - 1).zero?

            complaint = Batch.new(@pointers.get_array_of_uint64(0, 1))
            complaint.each { nil }
            complaint.complaints.each { |one| hear(one) }
            complaint.free
            timeout = 0
          end
          count
        end

        def hear(complaint)
          partition = [complaint.topic, complaint.number]
          if complaint.code == Librdkafka::ERR__AUTO_OFFSET_RESET
            return @starts.want(partition) if @assigned.key?(partition)
          elsif complaint.text.start_with?(STUCK)
            @rewind_at ||= now + REWIND_EVERY
          end
          text = complaint.text
          text = "topic #{complaint.topic} [#{complaint.number}]: #{text}" unless complaint.topic.nil? || text.include?(complaint.topic)
          report(complaint.code, text)
        end

        # An exception must not get into librdkafka: what ends the client is raised when it was read from.
        def report(code, text)
          return @log.report(code, text) unless code == Librdkafka::ERR__FATAL

          FFI::MemoryPointer.new(:char, 512) do |message|
            code = Librdkafka.rd_kafka_fatal_error(@handle, message, 512)
            @fatal ||= KafkaError.new("Kafka group #{@options['group.id']}", code, message.read_string, fatal: true)
          end
        end

        def consume(position, count, seconds)
          got = Librdkafka.rd_kafka_consume_batch_queue(@queue, (seconds * 1000).round, @pointers + (position * 8), count)
          [got, 0].max
        end

        def resume
          return unless @paused

          @paused = false
          Partitions.list(@assigned) { |list| Librdkafka.rd_kafka_resume_partitions(@handle, list) } unless @assigned.empty?
        end

        def now
          Process.clock_gettime(Process::CLOCK_MONOTONIC)
        end

        # @param result [Integer, FFI::Pointer] what a function returned: a code or a rd_kafka_error_t
        def check(result, doing)
          error = if result.is_a?(Integer)
                    KafkaError.new("Kafka #{doing}", result) unless result.zero?
                  else
                    KafkaError.take(result, "Kafka #{doing}")
                  end
          raise error if error
        end

        # With an eager protocol all partitions are assigned anew for the sake of one, so the offsets of all are asked for:
        # librdkafka would find none for those that nothing has been committed of yet, and they would take turns.
        def start_where_wanted
          assign_anew(@starts.find(cooperative? ? [] : @assigned.keys)) if @starts.wanted?
        end

        # @param offsets [Hash{Array(String, Integer) => Integer}] where to read on in partitions that are assigned
        def assign_anew(offsets)
          return if offsets.empty?

          offsets.each_key { |partition| @starts.forget(partition) }
          offsets = @assigned.merge(offsets) unless cooperative?
          Partitions.list(offsets) do |list|
            if cooperative?
              check(Librdkafka.rd_kafka_incremental_unassign(@handle, list), 'release of partitions')
              check(Librdkafka.rd_kafka_incremental_assign(@handle, list), 'assignment of partitions')
            else
              check(Librdkafka.rd_kafka_assign(@handle, list), 'assignment of partitions')
            end
          end
        end

        def cooperative?
          Librdkafka.rd_kafka_rebalance_protocol(@handle) == 'COOPERATIVE'
        end

        # An exception must not get into librdkafka, which would wait for an answer for ever.
        def rebalance(code, list)
          partitions = Partitions.read(list)
          if code == Librdkafka::ERR__ASSIGN_PARTITIONS
            assign(list, partitions)
          else
            revoke(list, partitions)
          end
        rescue StandardError => e
          @fatal ||= e
        end

        def assign(list, partitions)
          if cooperative?
            check(Librdkafka.rd_kafka_incremental_assign(@handle, list), 'assignment of partitions')
          else
            check(Librdkafka.rd_kafka_assign(@handle, list), 'assignment of partitions')
            @assigned.clear
            @positions.clear
          end
          # One that was taken away while it was paused comes back paused (RD_KAFKA_TOPPAR_F_APP_PAUSE is the partition's).
          Librdkafka.rd_kafka_resume_partitions(@handle, list) unless @paused
          partitions.each { |partition| @assigned[partition] = Librdkafka::OFFSET_INVALID }
          @on_rebalance&.call(:assigned, partitions)
        end

        def revoke(list, partitions)
          @revoked = true
          lost = Librdkafka.rd_kafka_assignment_lost(@handle) == 1
          if cooperative?
            check(Librdkafka.rd_kafka_incremental_unassign(@handle, list), 'release of partitions')
          else
            check(Librdkafka.rd_kafka_assign(@handle, nil), 'release of partitions')
          end
          partitions.each do |partition|
            [@assigned, @positions].each { |known| known.delete(partition) }
            @starts.forget(partition)
          end
          @on_rebalance&.call(lost ? :lost : :revoked, partitions)
        end
      end
    end
  end
end
