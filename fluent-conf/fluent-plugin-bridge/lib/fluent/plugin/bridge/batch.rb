# frozen_string_literal: true

require 'fluent/plugin/bridge/librdkafka'

module Fluent
  module Plugin
    module Bridge
      # Messages that were read together, in librdkafka's memory until {#free}.
      class Batch
        # A message that is none: a broker's or librdkafka's complaint about a topic or partition.
        Complaint = Struct.new(:topic, :number, :code, :text)

        # @return [Hash{Array(String, Integer) => Integer}] the offset after the last message, by topic and partition;
        #   after {#each}
        attr_reader :offsets
        # @return [Hash{Array(String, Integer) => Integer}] the offset of the first message, by topic and partition;
        #   after {#each}
        attr_reader :first_offsets
        # @return [Array<Complaint>] after {#each}
        attr_reader :complaints
        # @return [Integer] bytes of all payloads and keys; after {#each}
        attr_reader :bytes
        # @return [Integer] messages, complaints among them
        attr_reader :size

        # @param addresses [Array<Integer>] of rd_kafka_message_t
        def initialize(addresses)
          @addresses = addresses
          @size = addresses.size
          @offsets = {}
          @first_offsets = {}
          @complaints = []
          @bytes = 0
        end

        # @return [Integer] messages that are some; after {#each}
        def events
          @size - @complaints.size
        end

        # Yields each message: topic, partition, offset, address of the payload (0: none) and its length,
        # address of the key and its length, address of the message itself. All are valid until {#free}.
        # A run of messages from the same partition yields the same topic object.
        def each
          memory = Librdkafka::MEMORY
          handle = partition = topic = last = nil
          bytes = 0
          @addresses.each do |address|
            words = memory.get_array_of_uint64(address - 1, 8)
            if words[0].anybits?(0xffffffff) # the upper half is padding
              complain(words)
              next
            end
            if words[1] != handle || words[2] & 0xffffffff != partition
              @offsets[[topic, partition]] = last + 1 if topic
              handle = words[1]
              partition = words[2] & 0xffffffff
              topic = topic_name(handle)
              @first_offsets[[topic, partition]] ||= words[7]
            end
            last = words[7]
            bytes += words[4] + words[6]
            yield topic, partition, last, words[3], words[4], words[5], words[6], address
          end
          @offsets[[topic, partition]] = last + 1 if topic
          @bytes = bytes
        end

        # Gives the memory back.
        def free
          while (address = @addresses.pop)
            Librdkafka.rd_kafka_message_destroy(address)
          end
        end

        private

        def complain(words)
          code = [words[0] & 0xffffffff].pack('L').unpack1('l')
          text = words[3].zero? ? Librdkafka.rd_kafka_err2str(code) : Librdkafka::MEMORY.get_bytes(words[3] - 1, words[4])
          topic = words[1].zero? ? nil : topic_name(words[1])
          @complaints << Complaint.new(topic, [words[2] & 0xffffffff].pack('L').unpack1('l'), code, text)
        end

        # Handles differ from batch to batch only when topics come and go; within one they do not.
        def topic_name(handle)
          @names ||= {}
          @names[handle] ||= Librdkafka.rd_kafka_topic_name(FFI::Pointer.new(handle)).freeze
        end
      end
    end
  end
end
