# frozen_string_literal: true

require_relative '../helper'
require_relative '../kafka_groups'
require 'fluent/test/log'
require 'fluent/plugin/bridge/consumer'
require 'fluent/plugin/bridge/producer'

class ConsumerTest < Test::Unit::TestCase
  Bridge = Fluent::Plugin::Bridge
  # The least that a broker allows: whatever it waits for a member for, it does not wait long.
  SESSION = { 'session.timeout.ms' => '6000' }.freeze
  COOPERATIVE = { 'partition.assignment.strategy' => 'cooperative-sticky', **SESSION }.freeze
  EAGER = { 'partition.assignment.strategy' => 'range', **SESSION }.freeze
  BROKERS_CHOICE = { 'group.protocol' => 'consumer' }.freeze
  KINDS = { 'cooperative' => COOPERATIVE, 'eager' => EAGER, 'KIP-848' => BROKERS_CHOICE }.freeze
  SECONDS = 90 # for the machine at its slowest; what ends earlier does not wait

  setup do
    Fluent::Test.setup
    @log = Fluent::Test::TestLogger.new
    @group = SecureRandom.hex
    @clients = []
  end

  teardown { @clients.each(&:close) }

  def consumer(topics, options = COOPERATIVE, **)
    options = { 'bootstrap.servers' => Kafka.brokers, 'group.id' => @group, 'isolation.level' => 'read_committed',
                'enable.auto.commit' => 'false', 'enable.auto.offset.store' => 'false', **options }
    @clients << Bridge::Consumer.new(options, topics, log: @log, **)
    @clients.last
  end

  # Offsets that are in the transaction and not committed as long as it is open.
  def transaction(topic, offsets)
    options = { 'bootstrap.servers' => Kafka.brokers, 'transactional.id' => SecureRandom.hex }
    @clients << Bridge::Producer.new(options, log: @log)
    producer = @clients.last
    producer.init_transactions
    producer.begin_transaction
    reader = consumer([topic])
    step(reader) until reader.assignment.any?
    metadata = reader.group_metadata
    Bridge::Partitions.list(offsets.transform_keys { |number| [topic, number] }) { |list| producer.send_offsets(list, metadata.pointer) }
    metadata.free
    reader.close
    producer
  end

  # @return [Array<Array(String, Integer, Integer)>] topic, partition and offset of each message
  def step(consumer, timeout: 0.2, max_events: 100)
    batch = consumer.read(max_events: max_events, max_bytes: 1 << 20, timeout: timeout, wait: 0.05) or return []
    found = batch.enum_for.map { |topic, partition, offset, *| [topic, partition, offset] }
    consumer.seen(batch)
    found
  ensure
    batch&.free
  end

  def read(consumer, count)
    ends = now + SECONDS
    found = []
    found.concat(step(consumer)) while found.size < count && now < ends
    found
  end

  # A partition whose offsets could not be fetched is taken up once more a second later: what nobody has committed
  # comes again then.
  def read_anew(consumer, count)
    ends = now + SECONDS
    found = []
    found = found.concat(step(consumer)).uniq while found.size < count && now < ends
    found.sort
  end

  def watch(consumer, seconds)
    ends = now + seconds
    found = []
    found.concat(step(consumer)) while now < ends
    found
  end

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  def numbers(count) = Array.new(count) { |number| { payload: number.to_s } }

  data(KINDS)
  test 'waits for offsets that a transaction holds back, whatever happens to the assignment' do |kind|
    topic = Kafka.topic
    Kafka.write(topic, numbers(10))
    Kafka.commit(@group, topic, 0 => 5)
    producer = transaction(topic, 0 => 8)
    reader = consumer([topic], kind)
    assert_empty watch(reader, 2)
    2.times do # librdkafka takes an answer that came too late for one that there is no offset
      reader.rewind
      assert_empty watch(reader, 2)
    end
    producer.commit_transaction
    assert_equal([8, 9], read(reader, 2).map(&:last))
  end

  data(KINDS)
  test 'goes back to what is committed' do |kind|
    topic = Kafka.topic(partitions: 2)
    2.times { |partition| Kafka.write(topic, numbers(10).map { |message| { **message, partition: partition } }) }
    reader = consumer([topic], kind)
    all = read_anew(reader, 20)
    assert_equal 20, all.size
    reader.rewind
    assert_equal all, read_anew(reader, 20)
    reader.commit([topic, 0] => 4, [topic, 1] => 7)
    reader.rewind
    assert_equal [*(4..9).map { |offset| [topic, 0, offset] }, *(7..9).map { |offset| [topic, 1, offset] }], read(reader, 9).sort
    assert_empty watch(reader, 1)
  end

  # An answer that came too late had librdkafka begin anew half a second later. It comes late because a broker answers
  # in turn, and the fetch from the other partition waits for messages.
  data(KINDS)
  test 'does not go back to the beginning after something was committed' do |kind|
    topic = Kafka.topic(partitions: 2)
    Kafka.write(topic, numbers(10).map { |message| { **message, partition: 1 } })
    Kafka.commit(@group, topic, 0 => 0)
    reader = consumer([topic], { **kind, 'fetch.wait.max.ms' => '900' })
    ends = now + SECONDS
    step(reader, timeout: 0.01) until reader.assignment.any? || now > ends
    20.times { step(reader, timeout: 0.01) }
    reader.commit([topic, 1] => 5)
    reader.rewind
    assert_equal([5, 6, 7, 8, 9], read(reader, 5).map(&:last))
    assert_empty watch(reader, 3)
  end

  test 'finds out where to begin beside a partition that gives no answer' do
    topic = Kafka.topic(partitions: 2)
    reader = consumer([topic])
    ends = now + SECONDS
    step(reader) until reader.assignment.size == 2 || now > ends
    Kafka.write(topic, numbers(10))
    starts = reader.instance_variable_get(:@starts)
    3.times { |number| starts.want([topic, number]) } # there is no partition 2
    found = {}
    found = starts.find while found.empty? && now < ends
    assert_equal({ [topic, 0] => 0, [topic, 1] => 0 }, found)
  end

  data(KINDS)
  test 'stays in its group while a batch takes long, and loses nothing that came meanwhile' do |kind|
    topic = Kafka.topic
    Kafka.write(topic, numbers(10))
    events = []
    reader = consumer([topic], { **kind, 'max.poll.interval.ms' => '6000' }, on_rebalance: ->(event, _) { events << event })
    assert_equal 10, read(reader, 10).size
    before = generation(reader)
    8.times do |number|
      Kafka.write(topic, [{ payload: "late #{number}" }])
      reader.keep_alive
      sleep 1
    end
    assert_equal before, generation(reader)
    reader.commit([topic, 0] => 10)
    assert_equal((10..17).to_a, read(reader, 8).map(&:last))
    assert_equal [:assigned], events
  end

  def generation(reader)
    metadata = reader.group_metadata
    [Bridge::Librdkafka.rd_kafka_consumer_group_metadata_member_id(metadata.pointer),
     Bridge::Librdkafka.rd_kafka_consumer_group_metadata_generation_id(metadata.pointer)]
  ensure
    metadata&.free
  end

  data(KINDS)
  test 'gives up partitions while a batch takes long, and the batch is not committed for them' do |kind|
    topic = Kafka.topic(partitions: 2)
    2.times { |partition| Kafka.write(topic, numbers(10).map { |message| { **message, partition: partition } }) }
    first = consumer([topic], kind)
    assert_equal 20, read_anew(first, 20).size
    stale = first.group_metadata
    second = consumer([topic], kind)
    found = []
    ends = now + SECONDS
    while found.empty? && now < ends
      first.keep_alive
      found = step(second)
    end
    assert_equal 1, found.map { |_, partition, _| partition }.uniq.size
    options = { 'bootstrap.servers' => Kafka.brokers, 'transactional.id' => SecureRandom.hex }
    @clients << (producer = Bridge::Producer.new(options, log: @log))
    producer.init_transactions
    producer.begin_transaction
    error = assert_raise(Bridge::KafkaError) do
      Bridge::Partitions.list([topic, 0] => 10, [topic, 1] => 10) { |list| producer.send_offsets(list, stale.pointer) }
      producer.commit_transaction
    end
    assert error.requires_abort?, error.message
    producer.abort_transaction
    first.rewind
    assert_equal 10, read(first, 10).size # what it kept, once more
  ensure
    stale&.free
  end

  data(KINDS)
  test 'reads a partition that it gave up while a batch took long, and has again' do |kind|
    topic = Kafka.topic(partitions: 2)
    2.times { |partition| Kafka.write(topic, numbers(10).map { |message| { **message, partition: partition } }) }
    first = consumer([topic], kind)
    assert_equal 20, read_anew(first, 20).size
    second = consumer([topic], kind)
    ends = now + SECONDS
    first.keep_alive while step(second).empty? && now < ends
    assert_equal 1, first.assignment.size
    step(first) # the batch is done: what is left is read on
    second.close
    step(first) while first.assignment.size < 2 && now < ends
    first.rewind
    assert_equal [0, 1], read_anew(first, 20).map { |_, partition, _| partition }.uniq
  end

  data(KINDS)
  test 'begins at the end once, and not anew for what was not committed' do |kind|
    topic = Kafka.topic
    options = { **kind, 'auto.offset.reset' => 'latest' }
    Kafka.write(topic, numbers(3))
    reader = consumer([topic], options)
    ends = now + SECONDS
    found = []
    while found.empty? && now < ends # when it begins to read is not to be seen from here
      Kafka.write(topic, numbers(1))
      found = step(reader)
    end
    first = found.first
    assert_operator first.last, :>=, 3
    Kafka.write(topic, numbers(5))
    reader.rewind
    assert_equal first, read_anew(reader, 6).first
    reader.close
    assert_equal first, read_anew(consumer([topic], options), 6).first
  end

  test 'cannot go on when another member has its group.instance.id' do
    topic = Kafka.topic
    Kafka.write(topic, numbers(1))
    options = { **COOPERATIVE, 'group.instance.id' => 'me', 'heartbeat.interval.ms' => '500' }
    first = consumer([topic], options)
    read(first, 1)
    second = consumer([topic], options)
    error = assert_raise(Bridge::KafkaError) do
      watch(second, 0.5) + watch(first, 0.5) while true # rubocop:disable Style/InfiniteLoop
    end
    assert error.fatal?
    assert_match(/group_instance_id/, error.message)
  end

  data(KINDS.except('KIP-848')) # there the broker alone knows
  test 'is no member any more after it was thrown out, and says so' do |kind|
    topic = Kafka.topic
    Kafka.write(topic, numbers(1))
    reader = consumer([topic], { **kind, 'max.poll.interval.ms' => '6000' })
    read(reader, 1)
    sleep 8
    assert_match(/thrown out of its group/, assert_raise(Bridge::NotAMember) { reader.group_metadata }.message)
    reader.rewind
    assert_equal 1, read(reader, 1).size # joined anew, from what is committed
  end
end
